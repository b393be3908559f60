"""`xdpgw explain`: what would this policy do with these frames, and why.

The frames of a capture go through the object that would be attached, by BPF_PROG_TEST_RUN, with
the policy's rules in its maps. Nothing is attached.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpgw import _abi as abi
from xdpgw import loader, rules
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.compile import Image, compile_rules
from xdpgw.errors import VerifierError, XdpgwError

if TYPE_CHECKING:
    from xdpgw.config import Config

__all__ = ["Explainer", "Explanation", "explainer", "read_frames"]

Explanation = dict[str, Any]
"""One answer, with the keys of docs/policy.md: frame, verdict, reason, rule, target, key."""

ETHERNET = 1  # LINKTYPE_ETHERNET
ETHERNET_HEADER_BYTES = 14
FRAMES_AT_ONCE = 1024
_DECIDED_BY_RULE = (Reason.RULE, Reason.LIMIT, Reason.NO_SOCKET)


def read_frames(path: Path | str) -> Iterator[bytes]:
    """The frames of a pcap or pcapng file, as captured.

    Raises:
        XdpgwError: it cannot be read, is no such file, is cut off, or holds frames that are not
        Ethernet.
    """
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapReader

    try:
        with RawPcapReader(str(path)) as reader:
            for data, meta in reader:
                linktype = getattr(meta, "linktype", None)
                if linktype is None:
                    linktype = getattr(reader, "linktype", ETHERNET)
                if linktype != ETHERNET:
                    raise XdpgwError(
                        f"{path} holds frames of link type {linktype}",
                        "only Ethernet (1) can be explained; capture on an Ethernet interface",
                    )
                yield bytes(data)
    except OSError as error:
        raise XdpgwError(f"cannot read {path}: {error.strerror}") from error
    except (Scapy_Exception, EOFError, ValueError) as error:
        raise XdpgwError(
            f"{path} is not a whole pcap or pcapng file: {error}", "tcpdump -w writes one"
        ) from error


class Explainer:
    """A policy, loaded for one port and ready to judge frames; see `explainer`."""

    def __init__(self, loaded: loader.Loaded, port: str | None) -> None:
        self._loaded = loaded
        self._program = loaded.programs[port]
        self._explained = loaded.maps["explained"]
        self._rules = loaded.image.ruleset.rules
        self._malformed = loaded.image.ruleset.config.policy.malformed

    def explain(self, frames: Iterable[bytes]) -> Iterator[Explanation]:
        """Judge frames, in order; `frame` counts from 1."""
        source, number = iter(frames), 0
        while some := list(islice(source, FRAMES_AT_ONCE)):
            for answer in self._explain_some(some):
                number += 1
                yield {"frame": number, **answer}

    def _explain_some(self, frames: Sequence[bytes]) -> Iterator[Explanation]:
        whole = [frame for frame in frames if len(frame) >= ETHERNET_HEADER_BYTES]
        _, events = self._program.test_many(whole, self._explained)
        answers = iter(events)
        for frame in frames:
            if len(frame) < ETHERNET_HEADER_BYTES:  # the kernel runs no program on these
                yield self._too_short(len(frame))
            else:
                yield self._answer(next(answers))

    def _too_short(self, length: int) -> Explanation:
        key = dict.fromkeys(
            ("family", "src", "dst", "proto", "sport", "dport", "vlan", "frag", "len", "tcp_flags")
        )
        return {
            "verdict": self._malformed,
            "reason": Reason.MALFORMED.text,
            "rule": None,
            "target": None,
            "key": {**key, "len": length},
        }

    def _answer(self, event: Any) -> Explanation:
        reason = Reason(int(event["reason"]))
        rule = None
        if reason in _DECIDED_BY_RULE:
            rule = self._rules[int(event["rule"])]
        return {
            "verdict": Verdict(int(event["verdict"])).text,
            "reason": reason.text,
            "rule": rule.name if rule else None,
            "target": rule.action.target if rule else None,
            "key": key_of(event),
        }


def key_of(event: Any) -> dict[str, Any]:
    """The key of one struct xg_event (a numpy record): what the packet has, None for what it has
    not."""
    family, has = int(event["family"]), Has(int(event["has"]))
    size = {0: 0, 4: 4, 6: 16}[family]
    ports, frag = Has.PORTS in has, Frag(int(event["frag"]))
    vlan = int(event["vlan"])
    return {
        "family": family or None,
        "src": _address(event["src"], size),
        "dst": _address(event["dst"], size),
        "proto": int(event["proto"]) if Has.PROTO in has else None,
        "sport": int(event["sport"]) if ports else None,
        "dport": int(event["dport"]) if ports else None,
        "vlan": None if vlan == abi.VLAN_NONE else vlan,
        "frag": None if frag is Frag.NOT_IP else frag.name.lower(),
        "len": int(event["len_bytes"]),
        "tcp_flags": int(event["tcp_flags"]) if Has.TCP_FLAGS in has else None,
    }


def _address(raw: Any, size: int) -> str | None:
    return str(ipaddress.ip_address(bytes(raw)[:size])) if size else None


@contextmanager
def explainer(config: Config, port: str | None = None) -> Iterator[Explainer]:
    """Load a policy for judging frames.

    Args:
        config: the policy.
        port: the port that the frames came in on; if None, the policy's first one, if it has any.

    Raises:
        XdpgwError: the policy has no such port.
        UnsupportedError: the policy asks for what this version cannot judge.
    """
    if port is None:
        port = next(iter(config.ports), None)
    elif not config.ports:
        port = None
    elif port not in config.ports:
        raise XdpgwError(f"{config.path} has no port {port}", f"it has {', '.join(config.ports)}")
    # Slots are the rules' own numbers here, so that an event names its rule by it.
    image = compile_rules(rules.resolve(config))
    with _load(image, port) as loaded:
        yield Explainer(loaded, port)


def _load(image: Image, port: str | None) -> loader.Loaded:
    try:
        return loader.load(image, [port], explain=True, multi_buffer=True)
    except VerifierError:
        # A kernel before 5.18 has no bpf_xdp_get_buff_len; frames of over a page are beyond it.
        return loader.load(image, [port], explain=True)
