"""Files of sets that are looked at again, with a clock that only goes when it is told to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdpgw import config
from xdpgw.feeds import SETTLE_S, Feeds, Renewed
from xdpgw.prefixes import EMPTY, Prefixes
from xdpgw.rules import Addresses, resolve

ONE, TWO = (4, 0x0A000001, 32), (4, 0x0A000002, 32)
POLICY = """
policy.rules = "listed drop from @bad"
[sets]
bad = ["10.0.0.9", { file = "feed", refresh = "5m" }]
fixed = [{ file = "other" }]
"""


class World:
    """A folder with the files of a policy, and who looks after them."""

    def __init__(self, folder: Path, text: str = POLICY) -> None:
        self.folder = folder
        self.now = 1000.0
        self.told: list[str] = []
        self.write("feed", "10.0.0.1\n")
        self.write("other", "10.0.0.1\n")
        self.policy = config.loads(text, base=folder)
        self.feeds = Feeds(self.told.append, clock=lambda: self.now)
        self.feeds.follow(self.policy)

    def write(self, name: str, text: str) -> None:
        """As feeds are replaced: in one step."""
        path = self.folder / f"{name}.new"
        path.write_text(text)
        path.replace(self.folder / name)

    def after(self, seconds: float) -> Renewed | None:
        self.now += seconds
        return self.feeds.poll()

    def settled(self) -> Renewed | None:
        """What comes of the next look at the file and of the one that makes sure."""
        assert self.after(300) is None
        return self.after(SETTLE_S)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path)


def test_changed_file_gives_a_policy_with_its_prefixes(world: World) -> None:
    world.write("feed", "10.0.0.2\n10.0.0.3\n")
    assert world.after(299) is None
    assert world.after(1) is None  # seen, and may still be being written
    renewed = world.after(SETTLE_S)
    assert renewed is not None
    wanted = Prefixes.of([TWO, (4, 0x0A000003, 32), (4, 0x0A000009, 32)])
    assert renewed.policy.sets["bad"].prefixes == wanted
    assert resolve(renewed.policy).rules[0].predicates == (Addresses("src", False, wanted),)
    assert renewed.policy.sets["fixed"] is world.policy.sets["fixed"]
    assert renewed.text == "set bad: prefixes added 2, removed 1"
    assert world.told == []
    world.feeds.follow(renewed.policy)
    assert world.settled() is None


def test_touched_file_does_nothing(world: World) -> None:
    os.utime(world.folder / "feed")
    assert world.settled() is None
    world.write("feed", "# another comment\n10.0.0.1\n")
    assert world.settled() is None
    assert world.told == []


def test_wrong_file_is_told_once_and_its_correction_counts(world: World) -> None:
    world.write("feed", "10.0.0.2\n10.0.0.2/8\nnonsense\n")
    assert world.settled() is None
    (told,) = world.told
    lines = told.split("\n")
    assert lines[0] == f"{world.folder}/feed:2:1: 10.0.0.2/8 has bits set behind its prefix " + (
        "(write 10.0.0.0/8)"
    )
    assert lines[1].startswith(f'{world.folder}/feed:3:1: "nonsense" is not an address')
    assert lines[2:] == ["the policy in force stays in force"]
    assert world.settled() is None
    assert len(world.told) == 1
    world.write("feed", "10.0.0.2\n")
    assert world.settled() is not None


def test_missing_file_is_told_once_and_may_come_back(world: World) -> None:
    (world.folder / "feed").unlink()
    assert world.settled() is None
    assert world.settled() is None
    assert world.told == [
        f"{world.folder}/feed: cannot be read: No such file or directory "
        "(create it, or correct the path)\nthe policy in force stays in force"
    ]
    world.write("feed", "10.0.0.1\n")  # as in force
    assert world.settled() is None
    world.write("feed", "10.0.0.2\n")
    assert world.settled() is not None


def test_file_that_is_being_written_is_not_read(world: World) -> None:
    path = world.folder / "feed"
    path.write_text("10.0.0.2\n10.0.0.1")
    assert world.after(300) is None
    for _ in range(3):
        with path.open("a") as file:
            file.write("0")
        assert world.after(SETTLE_S) is None
    path.write_text("10.0.0.2\n")
    assert world.after(SETTLE_S) is None
    renewed = world.after(SETTLE_S)
    assert renewed is not None
    assert TWO in renewed.policy.sets["bad"].prefixes
    assert world.told == []


def test_file_that_changes_while_it_is_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xdpgw import feeds

    def read(path: Path, refresh_ns: int | None) -> object:
        made = whole(path, refresh_ns)
        if path.read_text().count("\n") == 1:
            world.write("feed", "10.0.0.2\n10.0.0.3\n")
        return made

    whole = feeds.read_feed
    monkeypatch.setattr(feeds, "read_feed", read)
    world.write("feed", "10.0.0.2\n")
    assert world.settled() is None
    assert world.after(SETTLE_S) is None
    renewed = world.after(SETTLE_S)
    assert renewed is not None
    assert len(renewed.policy.sets["bad"].prefixes) == 3


def test_file_without_a_byte_is_taken_for_half_written_and_a_comment_is_not(world: World) -> None:
    world.write("feed", "")
    assert world.settled() is None
    assert "feed:1:1: the file is empty" in world.told[0]
    world.write("feed", "# nothing today\n")
    renewed = world.settled()
    assert renewed is not None
    assert renewed.policy.sets["bad"].feeds[0].prefixes == EMPTY


def test_pipe_in_the_place_of_the_file_is_told_and_not_waited_for(world: World) -> None:
    (world.folder / "feed").unlink()
    os.mkfifo(world.folder / "feed")
    assert world.settled() is None
    assert "not a regular file" in world.told[0]


def test_file_of_two_sets_changes_both_at_the_shorter_time(tmp_path: Path) -> None:
    text = (
        '[sets]\na = [{ file = "feed", refresh = "1h" }]\nb = [{ file = "feed", refresh = "5m" }]'
    )
    world = World(tmp_path, f'{text}\nc = ["10.0.0.1", {{ file = "feed" }}]\n')
    world.write("feed", "10.0.0.2\n")
    renewed = world.settled()
    assert renewed is not None
    new = Prefixes.of([TWO])
    sets = {name: x.prefixes for name, x in renewed.policy.sets.items()}
    assert sets == {"a": new, "b": new, "c": Prefixes.of([ONE, TWO])}
    assert [x.refresh_ns for x in renewed.policy.sets["a"].feeds] == [3600 * 10**9]


def test_change_that_moves_a_prefix_between_files_does_nothing(tmp_path: Path) -> None:
    text = '[sets]\na = [{ file = "feed", refresh = "5m" }, { file = "other", refresh = "5m" }]'
    world = World(tmp_path, text)
    world.write("feed", "# gone\n")
    assert world.settled() is None


def test_file_that_never_rests_does_not_put_off_another(tmp_path: Path) -> None:
    text = '[sets]\na = [{ file = "feed", refresh = "1s" }, { file = "other", refresh = "5m" }]'
    world = World(tmp_path, text)
    world.write("other", "10.0.0.77\n")
    for second in range(0, 310, 2):
        world.write("feed", f"10.0.1.{second % 250}\n")
        for _ in range(2):
            renewed = world.after(1)
            if renewed is not None:
                world.policy = renewed.policy
                world.feeds.follow(renewed.policy)
    assert (4, 0x0A00004D, 32) in world.policy.sets["a"].prefixes
    assert world.told == []


def test_wrong_file_is_not_told_again_when_another_one_changes(tmp_path: Path) -> None:
    text = '[sets]\na = [{ file = "feed", refresh = "5m" }, { file = "other", refresh = "5m" }]'
    world = World(tmp_path, text)
    world.write("feed", "nonsense\n")
    world.write("other", "10.0.0.77\n")
    renewed = world.settled()
    assert renewed is not None
    world.feeds.follow(renewed.policy)
    assert world.settled() is None
    assert len(world.told) == 1


def test_policy_without_refresh_is_not_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path, '[sets]\na = [{ file = "feed" }]')
    world.write("feed", "10.0.0.2\n")
    assert world.settled() is None
    assert Feeds(world.told.append).poll() is None
