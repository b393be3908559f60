"""Sets of the policy in force that change without a reload: what the process in charge keeps.

The tables were compiled and loaded by this process, and their map has spare lines. Once another
image is in force, whoever put it there, what is kept of this one is let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from xdpgw.errors import KernelError

if TYPE_CHECKING:
    from types import TracebackType

    from xdpgw.compile import Image
    from xdpgw.kernel import Map
    from xdpgw.prefixes import Prefixes
    from xdpgw.rules import ResolvedRule
    from xdpgw.set_edits import SetEditor

__all__ = ["LiveSets", "replacements"]


class LiveSets:
    """The tables in force, if they can be edited, and which ones are in force."""

    def __init__(self) -> None:
        self.generation: int | None = None
        """`Instance.generation` of what this process last knew to be in force."""
        self._why = "they were loaded by another process"
        self._rules: Sequence[ResolvedRule] = ()
        self._editor: SetEditor | None = None
        self._memory = ExitStack()

    def hold(self, image: Image, lines: Map, generation: int | None) -> None:
        """Keep what it takes to edit an image that is in force now.

        Args:
            lines: its map of this name; it need not stay open.
        """
        self.let_go(generation, "no rule names a set that follows a file")
        if not image.spare_lines:
            return
        import numpy as np

        from xdpgw.set_edits import SetEditor

        try:
            words = self._memory.enter_context(lines.memory()).view(np.uint64)
        except KernelError as error:
            self._why = str(error)
            return
        self._editor = SetEditor(image.tables, words.reshape(-1, image.tables.lines.shape[1]))
        self._rules = image.ruleset.rules

    def let_go(
        self, generation: int | None, why: str = "they were loaded by another process"
    ) -> None:
        """Keep nothing but that this generation is in force now."""
        self.generation, self._why = generation, why
        self._editor, self._rules = None, ()
        self._memory.close()

    def replace(self, rules: Sequence[ResolvedRule]) -> int:
        """Make the tables in force those of rules that differ in prefixes only.

        Returns:
            how many prefixes were changed.

        Raises:
            NeedsRebuild: says why; the tables are as before, and can no longer be edited.
        """
        from xdpgw.set_edits import NeedsRebuild

        if self._editor is None:
            raise NeedsRebuild(self._why)
        try:
            count = self._editor.change(replacements(self._rules, rules))
        except BaseException:
            self.let_go(self.generation, "the change before was given up")
            raise
        self._rules = rules
        return count

    def __enter__(self) -> LiveSets:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.let_go(None)


def replacements(
    before: Sequence[ResolvedRule], after: Sequence[ResolvedRule]
) -> list[tuple[Prefixes, Prefixes]]:
    """(old, new) of the sets that rules name and that are others now.

    Tables know sets by their prefixes. So those that are alike must stay so, whatever their names.

    Raises:
        NeedsRebuild: they do not, or the rules differ in more.
    """
    from xdpgw.set_edits import NeedsRebuild

    became: dict[Prefixes, Prefixes] = {}
    for old, new in _named(before, after):
        if became.setdefault(old, new) != new:
            raise NeedsRebuild("sets that were alike are so no longer")
    changed = {old: new for old, new in became.items() if old != new}
    if any(new in changed for new in changed.values()):
        raise NeedsRebuild("a set is now what another one was")
    return list(changed.items())


def _named(
    before: Sequence[ResolvedRule], after: Sequence[ResolvedRule]
) -> Iterator[tuple[Prefixes, Prefixes]]:
    from xdpgw.rule_types import Addresses
    from xdpgw.set_edits import NeedsRebuild

    if [len(x.predicates) for x in before] != [len(x.predicates) for x in after]:
        raise NeedsRebuild("the rules are others")
    for old_rule, new_rule in zip(before, after, strict=True):
        for old, new in zip(old_rule.predicates, new_rule.predicates, strict=True):
            if isinstance(old, Addresses) and isinstance(new, Addresses):
                yield old.prefixes, new.prefixes
            elif old != new:
                raise NeedsRebuild("the rules are others")
