"""A person's wish to block sources, checked: one way for `xdpgw block` and for `xdpgw top`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xdpgw.blocks import add, allowed_part
from xdpgw.errors import XdpgwError
from xdpgw.literals import Wrong, addresses, duration_ns, prefix_text
from xdpgw.session import find_session

if TYPE_CHECKING:
    from xdpgw.pins import Instance, Manifest
    from xdpgw.rule_types import Prefix

__all__ = ["block", "check_reason", "named", "time_of"]

LONGEST = "3650d"
NAMED_MOST = 5
"""So many sources are told by name, the rest by number."""


def time_of(word: str) -> int:
    """For how long, in ns.

    Raises:
        Wrong: it is not a time.
    """
    return duration_ns(word, "1s", LONGEST, "time")


def check_reason(reason: str) -> None:
    """Take a line of text.

    Raises:
        Wrong: it is something else.
    """
    if not reason.isprintable():
        raise Wrong("write one line of printable text")


def block(
    instance: Instance,
    manifest: Manifest,
    sources: Sequence[Prefix],
    *,
    for_ns: int | None,
    reason: str = "",
    force: bool = False,
) -> str | None:
    """Block sources, unless that would be foolish or the policy allows them.

    Args:
        force: do not ask whether it is foolish.

    Returns:
        a warning, if some part of them is not blocked.

    Raises:
        XdpgwError: why nothing was blocked; or as `blocks.add`.
    """
    if not force:
        _refuse_dangerous(sources)
    warning = _hold_against_allow(sources, manifest)
    add(instance, sources, for_ns=for_ns, reason=reason)
    return warning


def named(sources: Sequence[Prefix]) -> str:
    """Sources as text, if they are few."""
    names = ", ".join(map(prefix_text, sources[:NAMED_MOST]))
    more = len(sources) - NAMED_MOST
    return f"{names} and {more} more" if more > 0 else names or "nothing"


def _refuse_dangerous(sources: Sequence[Prefix]) -> None:
    for family, address, bits in sources:
        if bits == 0:
            raise XdpgwError(
                f"{prefix_text((family, address, bits))} blocks all of IPv{family}",
                "add --force if that is what you want",
            )
    session = find_session()
    if session is None:
        return
    for source, _ in allowed_part(sources, addresses(session.client)):
        raise XdpgwError(
            f"{prefix_text(source)} covers {session.client}, from where your SSH session comes: "
            "it would be the last one",
            "put it into allow of [policy], or add --force",
        )


def _hold_against_allow(sources: Sequence[Prefix], manifest: Manifest) -> str | None:
    parts = list(allowed_part(sources, manifest.allow))
    whole = [source for source, is_whole in parts if is_whole]
    if whole:
        raise XdpgwError(
            f"the policy allows it, so it cannot be blocked: {named(whole)}",
            f"nothing was blocked; allow is in [policy] of {manifest.policy_file}",
        )
    if parts:
        some = named([source for source, _ in parts])
        return f"warning: the policy allows a part of it, which is not blocked: {some}"
    return None
