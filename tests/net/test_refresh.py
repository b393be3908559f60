"""Sets with `refresh`: `xdpgw run` follows their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.process import data, running, until, xdpgw
from xdpgw.pins import Instance
from xdpgw.set_edits import MOST
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

IN_PLACE = "prefixes changed in the tables in force: "
SIX = {src: f.eth(f.ipv6(f.udp(b"x"), src=src)) for src in ("2001:db9::1", "2001:db9::2")}
LIMITED = "few limit 2/m burst 2 from 192.0.2.9"


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


def dropped(bed: TestBed, rule: str = "listed") -> int:
    """Packets that a rule counted."""
    return int({x["name"]: x["packets"] for x in data(bed, "rules")}[rule])


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
        run.said(IN_PLACE)
        other.write_text(f"{ONE}\n")
        until(lambda: run.err.read_text().count(IN_PLACE) == 2, "the next change")
        assert "set feed" not in run.err.read_text()


def test_edit_of_the_policy_waits_for_its_own_reload(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        policy.write_text(policy.read_text().replace("listed ", "edited "))
        write(policy, TWO)
        run.said(IN_PLACE)
        assert [x["name"] for x in data(bed, "rules")] == ["listed"]


def in_force(bed: TestBed) -> tuple[int, int]:
    """(program of the port, since when the policy is in force)."""
    with bed.gateway.entered():
        manifest = Instance().manifest()
    assert manifest is not None
    return manifest.ports["left"].prog_id, manifest.loaded_at_ns


def test_change_of_few_prefixes_is_made_in_the_tables_in_force(bed: TestBed, policy: Path) -> None:
    policy.write_text(policy.read_text().replace("listed", f"{LIMITED}\nlisted"))
    limited = f.eth(f.ipv4(f.udp(b"x"), src="192.0.2.9"))
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        program, since = in_force(bed)
        wire.send([FRAMES[ONE], FRAMES[TWO], limited, limited, *SIX.values()])
        assert host.receive(5) == [FRAMES[TWO], limited, limited, *SIX.values()]
        write(policy, f"{TWO}\n2001:db9::1")
        run.said("set feed: prefixes added 2, removed 1")
        run.said(f"{IN_PLACE}3")
        wire.send([FRAMES[TWO], limited, *SIX.values(), FRAMES[ONE]])
        assert host.receive(2) == [SIX["2001:db9::2"], FRAMES[ONE]]
        until(lambda: dropped(bed, "listed") == 3, "the rule goes on counting")
        assert dropped(bed, "few") == 1  # its bucket is as empty as before
        assert in_force(bed)[0] == program
        assert in_force(bed)[1] > since
        write(policy, "# nothing")
        run.said(f"{IN_PLACE}2")
        wire.send([FRAMES[ONE], FRAMES[TWO], SIX["2001:db9::1"]])
        assert host.receive(3) == [FRAMES[ONE], FRAMES[TWO], SIX["2001:db9::1"]]
        assert "made anew" not in run.err.read_text()


def test_change_of_many_prefixes_makes_the_tables_anew(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        hosts = "\n".join(f"10.0.{n // 256}.{n % 256}" for n in range(MOST))
        write(policy, f"{TWO}\n2001:db9::/64\n{hosts}")
        run.said(f"the tables were made anew: {MOST + 3} prefixes differ")
        run.said("left: switched to the new policy")
        wire.send([FRAMES[TWO], *SIX.values(), FRAMES[ONE]])
        assert host.receive(1) == [FRAMES[ONE]]
        until(lambda: dropped(bed, "listed") == 3, "the rule counts")


def test_change_after_a_reload_by_another_process_makes_the_tables_anew(
    bed: TestBed, policy: Path
) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        assert xdpgw(bed, "reload").returncode == 0
        run.said("the policy was replaced by another process")
        write(policy, f"{TWO}")
        run.said("the tables were made anew: they were loaded by another process")
        run.said("left: switched to the new policy")
        wire.send([FRAMES[TWO], FRAMES[ONE]])
        assert host.receive(1) == [FRAMES[ONE]]
        write(policy, f"{ONE}")
        run.said(f"{IN_PLACE}2")
        wire.send([FRAMES[ONE], FRAMES[TWO]])
        assert host.receive(1) == [FRAMES[TWO]]


def test_set_behind_not_is_changed_in_place(bed: TestBed, policy: Path) -> None:
    policy.write_text(policy.read_text().replace("from @feed", "from not @feed"))
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        write(policy, f"{TWO}")
        run.said(f"{IN_PLACE}2")
        wire.send([FRAMES[ONE], FRAMES[TWO]])
        assert host.receive(1) == [FRAMES[TWO]]


def test_set_that_allow_names_is_changed_there_too(bed: TestBed, policy: Path) -> None:
    policy.write_text(
        policy.read_text()
        .replace("[policy]", '[policy]\nallow = ["@spared"]')
        .replace("[sets]", '[sets]\nspared = [{ file = "spared.netset", refresh = "1s" }]')
    )
    spared = policy.with_name("spared.netset")
    spared.write_text(f"{ONE}\n")
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire, bed.host() as host:
        run.said("left: attached")
        spared.write_text(f"{TWO}\n")
        run.said("the tables were made anew: what no block covers changes, too")
        run.said("left: switched to the new policy")
        assert xdpgw(bed, "block", "192.0.2.0/30").returncode == 0
        other = f.eth(f.ipv4(f.udp(b"x"), src="192.0.2.3"))
        wire.send([other, FRAMES[TWO]])
        assert host.receive(1) == [FRAMES[TWO]]
