"""Files of sets that change while the policy is in force: `refresh` of [sets].

    due -> another stamp -> for SETTLE_S the same one -> read -> right -> other prefixes

Whoever drops out on the way is told about once a change, and is looked at again when it is due.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xdpgw.config import Config
from xdpgw.errors import ConfigError, Diagnostic
from xdpgw.sets import MAX_ALLOWED, Feed, Stamp, allowed, read_feed, stamp_of, unreadable

__all__ = ["SETTLE_S", "Feeds", "Renewed"]

SETTLE_S = 1.0
"""A file that changed a shorter while ago may still be being written."""

_NS = 1e-9
_NEVER = Stamp(-1, -1, -1, -1, -1)  # of no file


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of a policy.

    Args:
        policy: the same with other prefixes.
        text: what changed, a line a set.
    """

    policy: Config
    text: str


@dataclass(slots=True)
class _Watched:
    """One file; times are those of the clock.

    Args:
        feed: as the policy in force has it.
        seen: the stamp that was dealt with last; None: there was no file.
        pending: another stamp that was met, and that has to last.
    """

    feed: Feed
    every_s: float
    due: float
    seen: Stamp | None
    pending: Stamp | None = _NEVER


class Feeds:
    """The files of a policy that are to be looked at again.

    Args:
        note: takes what is wrong with a file, a line or a few at a time.
        clock: seconds.
    """

    def __init__(
        self, note: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._note, self._clock = note, clock
        self._policy: Config | None = None
        self._watched: dict[Path, _Watched] = {}

    def follow(self, policy: Config) -> None:
        """Look after the files of this policy, which is in force now, and after no others."""
        before, self._watched, self._policy = self._watched, {}, policy
        for feed in _refreshed(policy):
            every_s = (feed.refresh_ns or 0) * _NS
            due = self._clock() + every_s
            if feed.path in self._watched:  # in two sets: the shorter time counts
                every_s = min(every_s, self._watched[feed.path].every_s)
            known = before.get(feed.path)
            if known is None or known.feed.stamp != feed.stamp:
                known = _Watched(feed, every_s, due, feed.stamp)
            known.every_s, known.due = every_s, min(due, known.due)
            self._watched[feed.path] = before[feed.path] = known

    def rest(self) -> None:
        """Look after no files until there is a policy to follow."""
        self._watched = {}

    def poll(self) -> Renewed | None:
        """Look at the files that are due. The policy with what is new in them, if anything is."""
        if self._policy is None:
            return None
        fresh = {}
        for watched in self._watched.values():
            if self._clock() >= watched.due and (feed := self._look(watched)):
                fresh[feed.path] = feed
        try:
            return _renewed(self._policy, fresh) if fresh else None
        except ConfigError as error:
            self._note(f"{error}\nthe policy in force stays in force")
            return None

    def _look(self, watched: _Watched) -> Feed | None:
        """The file, if it was read and has other prefixes than before."""
        path = watched.feed.path
        watched.due = self._clock() + watched.every_s
        stamp = _stamp(path)
        if stamp == watched.seen:
            watched.pending = _NEVER
            return None
        if stamp != watched.pending:
            watched.pending, watched.due = stamp, self._clock() + min(SETTLE_S, watched.every_s)
            return None
        feed, wrong = _read(watched.feed)
        if feed is not None and _stamp(path) != feed.stamp:  # it changed while it was read
            watched.pending, watched.due = _NEVER, self._clock() + min(SETTLE_S, watched.every_s)
            return None
        watched.seen, watched.pending = stamp, _NEVER
        if wrong or feed is None:
            self._note("\n".join([*map(str, wrong), "the policy in force stays in force"]))
            return None
        return None if feed.prefixes == watched.feed.prefixes else feed


def _refreshed(policy: Config) -> Iterator[Feed]:
    for named in policy.sets.values():
        yield from (feed for feed in named.feeds if feed.refresh_ns is not None)


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp_of(path.stat())
    except (OSError, ValueError):
        return None


def _read(old: Feed) -> tuple[Feed | None, list[Diagnostic]]:
    path = old.path
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would hold up the process
            raise ValueError("it is not a regular file")
        feed, wrong = read_feed(path, old.refresh_ns)
    except (OSError, ValueError) as error:
        return None, [Diagnostic(str(path), 0, 0, *unreadable(error))]
    if not wrong and old.prefixes and feed.stamp and feed.stamp.size == 0:
        message = "the file is empty, as one that is about to be written"
        wrong = [Diagnostic(str(path), 1, 1, message, "write a comment to mean no address")]
    return feed, wrong


def _renewed(policy: Config, fresh: Mapping[Path, Feed]) -> Renewed | None:
    sets, lines = dict(policy.sets), []
    for name, named in policy.sets.items():
        if not any(feed.path in fresh for feed in named.feeds):
            continue
        sets[name] = named.with_feeds(
            replace(fresh[x.path], refresh_ns=x.refresh_ns) if x.path in fresh else x
            for x in named.feeds
        )
        added, removed = named.prefixes.difference(sets[name].prefixes)
        lines.append(f"set {name}: prefixes added {len(added)}, removed {len(removed)}")
    if all(new.prefixes == policy.sets[name].prefixes for name, new in sets.items()):
        return None  # what a file gained or lost, another one has
    settings = policy.policy
    allow = {prefix for word in settings.allow_words for prefix in allowed(word, sets)}
    if len(allow) > MAX_ALLOWED:
        message = f"allow would hold {len(allow)} addresses and prefixes"
        raise ConfigError([Diagnostic(str(policy.path), 0, 0, message, _ALLOW_HINT)])
    settings = replace(settings, allow=tuple(sorted(allow)))
    return Renewed(replace(policy, policy=settings, sets=sets), "\n".join(lines))


_ALLOW_HINT = f"name sets in it that have {MAX_ALLOWED} at most"
