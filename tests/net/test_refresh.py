"""Sets with `refresh`: `xdpgw run` follows their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.process import data, running, until
from xdpgw.testbed import TestBed

POLICY = """
[policy]
rules = \"\"\"
listed  drop  from @feed
\"\"\"
[sets]
feed = [{ file = "feed.netset", refresh = "1s" }]
[ports.left]
mode = "MODE"
[log]
sources = "off"
"""
ONE, TWO = "192.0.2.1", "192.0.2.2"
FRAMES = {src: f.eth(f.ipv4(f.udp(b"x"), src=src)) for src in (ONE, TWO)}


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


@pytest.fixture
def policy(tmp_path: Path, mode: str) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(POLICY.replace("MODE", mode))
    write(path, ONE)
    return path


def write(policy: Path, text: str) -> None:
    """Replace the feed as feeds are replaced: in one step."""
    new = policy.with_name("feed.new")
    new.write_text(f"{text}\n")
    new.replace(policy.with_name("feed.netset"))


def dropped(bed: TestBed) -> int:
    """Packets that the rule counted."""
    return int(data(bed, "rules")[0]["packets"])


def test_changed_feed_takes_effect_and_the_rule_goes_on_counting(
    bed: TestBed, policy: Path
) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        wire.send([FRAMES[ONE], FRAMES[TWO]])
        assert host.receive(1) == [FRAMES[TWO]]
        write(policy, f"{TWO}\n2001:db8::/32")
        run.said("set feed: prefixes added 2, removed 1")
        run.said("left: switched to the new policy")
        wire.send([FRAMES[TWO], FRAMES[ONE]])
        assert host.receive(1) == [FRAMES[ONE]]
        until(lambda: dropped(bed) == 2, "both are counted")
        assert "stays in force" not in run.err.read_text()


def test_wrong_feed_is_told_with_its_line_and_changes_nothing(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        write(policy, f"{TWO}\n{TWO}/8")
        run.said("the policy in force stays in force")
        assert f"feed.netset:2:1: {TWO}/8 has bits set behind its prefix" in run.err.read_text()
        (policy.parent / "feed.netset").unlink()
        run.said("feed.netset: cannot be read: No such file or directory")
        wire.send([FRAMES[ONE], FRAMES[TWO]])
        assert host.receive(1) == [FRAMES[TWO]]
        write(policy, TWO)
        run.said("set feed: prefixes added 1, removed 1")
        assert run.err.read_text().count("stays in force") == 2


def test_feed_that_empties_a_set_behind_not_changes_nothing(bed: TestBed, policy: Path) -> None:
    policy.write_text(policy.read_text().replace("from @feed", "from not @feed"))
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        write(policy, "# nothing")
        run.said('set "feed" is empty')
        run.said("the policy in force stays in force")
        wire.send([FRAMES[TWO], FRAMES[ONE]])
        assert host.receive(1) == [FRAMES[ONE]]


def test_touched_feed_does_not_replace_the_policy(bed: TestBed, policy: Path) -> None:
    other = policy.with_name("other.netset")
    other.write_text(f"{ONE}\n")
    both = '[sets]\nother = [{ file = "other.netset", refresh = "1s" }]'
    policy.write_text(policy.read_text().replace("[sets]", both))
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        write(policy, f"# another comment\n{ONE}")
        other.write_text(f"{TWO}\n")  # looked at in the same breath, but later
        run.said("set other: prefixes added 1, removed 1")
        run.said("left: switched to the new policy")
        other.write_text(f"{ONE}\n")
        until(lambda: run.err.read_text().count("switched") == 2, "the next change")
        assert "set feed" not in run.err.read_text()


def test_edit_of_the_policy_waits_for_its_own_reload(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        policy.write_text(policy.read_text().replace("listed ", "edited "))
        write(policy, TWO)
        run.said("left: switched to the new policy")
        assert [x["name"] for x in data(bed, "rules")] == ["listed"]
