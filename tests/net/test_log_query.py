"""`xdpgw log query` beside a filter that logs into SQLite, and what it says of a real one."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.process import data, running, until, xdpgw
from xdpgw.demo import samples
from xdpgw.testbed import TestBed

POLICY = """
[policy]
default = "drop"
rules = \"\"\"
web    pass   tcp to port {80, 443}  log
nine   drop   udp to port 9          log
who    drop   arp                    log
slow   limit 1/m  udp to port 7
rest   pass   ip                     log
rest6  pass   ip6                    log
\"\"\"
[ports.left]
mode = "MODE"
[log]
sources = "every"
sinks = [{ jsonl = "events.jsonl" }, { sqlite = { path = "events.db", keep_for = "7d" } }]
"""
NINE = f.eth(f.ipv4(f.udp(b"x", dport=9)))


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


@pytest.fixture
def policy(tmp_path: Path, mode: str) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(POLICY.replace("MODE", mode))
    return path


def counted(bed: TestBed) -> int:
    """Events of the log of the filter in force."""
    found: int = data(bed, "log", "query", "--count")["events"]
    return found


def test_log_query_of_the_filter_in_force_says_what_jsonl_says(bed: TestBed, policy: Path) -> None:
    jsonl = policy.with_name("events.jsonl")
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        wire.send([frame for _, frame in samples()])
        due = until(lambda: data(bed, "status")["log"]["written"], "events")
        until(lambda: counted(bed) == due, f"{due} events, while it runs")
        told = xdpgw(bed, "log", "query", "--json")
        assert (told.returncode, told.stderr) == (0, "")
        assert sorted(told.stdout.splitlines()) == sorted(jsonl.read_text().splitlines())
        kinds = {(x["reason"], x["family"]) for x in map(json.loads, told.stdout.splitlines())}
        assert {("rule", 4), ("rule", 6), ("rule", None), ("malformed", 4)} <= kinds
        assert run.end(signal.SIGINT) == 0
    # After its end, and of the file alone.
    path = policy.with_name("events.db")
    assert [x.name for x in policy.parent.glob("events.db*")] == ["events.db"]
    assert xdpgw(bed, "log", "query", path, "--count").stdout == f"{due}\n"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM log WHERE rule = 'who'").fetchone() == (1,)


def test_log_query_finds_by_source_and_rule_in_a_running_log(bed: TestBed, policy: Path) -> None:
    frames = [f.eth(f.ipv4(f.udp(b"x", dport=9), src=f"10.9.{n % 3}.{n}")) for n in range(30)] + [
        f.eth(f.ipv6(f.tcp(b"", dport=80), src=f"2001:db8:{n}::1")) for n in range(4)
    ]
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        wire.send(frames)
        until(lambda: counted(bed) == len(frames), "all events")
        of_net = data(bed, "log", "query", "--src", "10.9.1.0/24", "--count")["events"]
        assert of_net == 10
        by = xdpgw(bed, "log", "query", "--since", "1h", "--by", "rule", "--json").stdout
        groups = [json.loads(line) for line in by.splitlines()]
        assert [(x["rule"], x["events"]) for x in groups] == [("nine", 30), ("web", 4)]
        query = "SELECT src FROM log WHERE family = 6 ORDER BY src LIMIT 1"
        assert xdpgw(bed, "log", "query", "--sql", query).stdout == "src\n2001:db8:1::1\n"


def test_log_deleted_under_a_run_is_begun_anew(bed: TestBed, policy: Path) -> None:
    path = policy.with_name("events.db")
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        wire.send([NINE] * 3)
        until(lambda: counted(bed) == 3, "the first events")
        for each in policy.parent.glob("events.db*"):
            each.unlink()
        wire.send([NINE] * 2)
        until(lambda: path.exists() and counted(bed) == 2, "the next ones, in another file")
        assert run.end() == 0
        assert "fails" not in run.err.read_text()


def test_log_locked_under_a_run_waits_and_loses_nothing(bed: TestBed, policy: Path) -> None:
    path = policy.with_name("events.db")
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            wire.send([NINE] * 3)
            run.said("database is locked")
            other.execute("ROLLBACK")
        until(lambda: counted(bed) == 3, "all events")
        run.said("is well again; it has lost 0 events")


def test_log_query_without_a_filter_says_so(bed: TestBed) -> None:
    done = xdpgw(bed, "log", "query")
    assert done.returncode == 1
    assert "no filter is in force" in done.stderr
