"""The log's sinks under the process in charge: their books in `status`, other sinks by SIGHUP."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import frames as f
from tests.net.process import Running, data, running, until, xdpgw
from tests.unit.listeners import UnixDatagrams
from xdpgw.generate import generate
from xdpgw.pins import Instance
from xdpgw.sink_stats import SinkBoard, SinkStats, read_sinks
from xdpgw.sinks import binary
from xdpgw.testbed import TestBed

FRAME = f.eth(f.ipv4(f.udp(b"x", dport=9)))
POLICY = """
[policy]
rules = "nine drop udp to port 9"
[ports.left]
mode = "generic"
[log]
sources = "every"
sinks = [SINKS]
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


def policy(folder: Path, *sinks: str) -> Path:
    path = folder / "edge.toml"
    path.write_text(POLICY.replace("SINKS", ", ".join(sinks)))
    return path


def books(bed: TestBed) -> dict[str, dict[str, Any]]:
    """The books of the sinks, by the last word of their names."""
    return {x["name"].split("/")[-1]: x for x in data(bed, "status")["log"]["sinks"]}


def send(bed: TestBed, count: int) -> None:
    with bed.wire() as wire:
        for _ in range(count):
            wire.send([FRAME])


def until_written(bed: TestBed, name: str, count: int) -> None:
    until(lambda: books(bed)[name]["written"] == count, f"{count} events in {name}")


def ended(bed: TestBed, run: Running) -> dict[str, dict[str, Any]]:
    """The books that the process left; they add up."""
    assert run.end(signal.SIGINT) == 0
    found = books(bed)
    log = data(bed, "status")["log"]
    for sink in found.values():
        assert sink["queued"] == 0
        assert sink["written"] + sink["lost"] == log["written"]
    return found


def test_status_shows_the_books_of_each_sink_and_what_it_suffers_from(
    bed: TestBed, tmp_path: Path
) -> None:
    path = policy(tmp_path, '"stdout"', f'{{ journald = "{tmp_path}/journal" }}')
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        send(bed, 5)
        until_written(bed, "stdout", 5)
        until(lambda: books(bed)["journal"]["failing"], "a complaint")
        sink = books(bed)["journal"]
        assert (sink["written"], sink["lost"], sink["queued"]) == (0, 0, 5)
        assert sink["failing"].endswith("journal: No such file or directory")
        assert sink["failing_since_ns"] > 0
        shown = xdpgw(bed, "status").stdout
        assert "log: stdout: events written 5, lost 0, waiting 0\n" in shown
        assert f"log: journald {tmp_path}/journal: events written 0, lost 0, waiting 5; " in shown
        assert "No such file or directory" in shown
        listener = UnixDatagrams(tmp_path / "journal")
        until_written(bed, "journal", 5)
        listener.stop()
        assert len(listener.heard) == 5
        found = ended(bed, run)
        assert found["journal"]["failing"] is None
        run.said("is well again; it has lost 0 events so far")
        assert run.err.read_text().count("fails; events wait for it") == 1


def test_run_ends_though_a_sink_hangs_for_ever(bed: TestBed, tmp_path: Path) -> None:
    """A pipe that nobody reads takes 64 KiB, and then never returns from the write."""
    os.mkfifo(tmp_path / "pipe")
    path = policy(tmp_path, '{ jsonl = "pipe" }', '{ jsonl = "events" }', '{ binary = "bin" }')
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        send(bed, 1000)
        until_written(bed, "events", 1000)
        until_written(bed, "bin", 1000)
        until(lambda: books(bed)["pipe"]["queued"], "events that wait")
        found = ended(bed, run)
        assert found["pipe"]["lost"] > 0
        assert found["events"]["lost"] == found["bin"]["lost"] == 0
        run.said(f"is stuck: its last {found['pipe']['lost']} events are lost")
        run.said(f"lost {found['pipe']['lost']} of 1000 events")
    assert (tmp_path / "events").read_bytes().count(b"\n") == 1000
    assert len(binary.read(tmp_path / "bin")) == 1000


def test_run_ends_though_nobody_reads_its_output(bed: TestBed, tmp_path: Path) -> None:
    path = policy(tmp_path, '"stdout"')
    os.mkfifo(tmp_path / "out.txt")
    nobody = os.open(tmp_path / "out.txt", os.O_RDONLY | os.O_NONBLOCK)
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        send(bed, 2000)
        until(lambda: books(bed)["stdout"]["failing"], "a complaint")
        found = ended(bed, run)["stdout"]
        assert found["lost"] > 0
        run.said("standard output: its reader does not read")
        assert "Fatal Python error" not in run.err.read_text()
    os.close(nobody)


@pytest.mark.parametrize("stderr", ["full", "unread", "gone"])
def test_run_goes_on_though_nobody_can_be_told(bed: TestBed, tmp_path: Path, stderr: str) -> None:
    path = policy(tmp_path, f'{{ journald = "{tmp_path}/journal" }}', '{ jsonl = "events" }')
    nobody = -1
    if stderr == "full":
        (tmp_path / "err.txt").symlink_to("/dev/full")
    else:
        os.mkfifo(tmp_path / "err.txt")
        nobody = os.open(tmp_path / "err.txt", os.O_RDWR | os.O_NONBLOCK)
        if stderr == "unread":
            os.write(nobody, bytes(1 << 16))
    with running(bed, tmp_path, "run", path) as run:
        until(lambda: xdpgw(bed, "status").returncode == 0, "a filter")
        if stderr == "gone":
            os.close(nobody)
        send(bed, 100)
        until(lambda: books(bed)["journal"]["failing"], "trouble")
        run.tell(signal.SIGHUP)  # which is answered
        listener = UnixDatagrams(tmp_path / "journal")
        until_written(bed, "journal", 100)
        until_written(bed, "events", 100)
        listener.stop()
        assert len(listener.heard) == 100
        assert run.end(signal.SIGTERM) == 0
    if stderr == "unread":
        os.close(nobody)


def test_sighup_changes_sinks_while_events_flow_and_those_that_stay_lose_nothing(
    bed: TestBed, tmp_path: Path
) -> None:
    stays, away, comes = (f'{{ jsonl = "{name}" }}' for name in ("stays", "away", "comes"))
    path = policy(tmp_path, stays, away)
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        inode = (tmp_path / "stays").stat().st_ino
        sent = 0
        for sinks in ((stays, comes), (stays, away), (comes, stays), (stays, away, comes)):
            send(bed, 50)
            policy(tmp_path, *sinks)
            run.tell(signal.SIGHUP)
            send(bed, 50)
            sent += 100
            until(lambda wanted=sinks: len(books(bed)) == len(wanted), "the sinks of the policy")
            until_written(bed, "stays", sent)
        assert (tmp_path / "stays").stat().st_ino == inode
        events = (tmp_path / "stays").read_text().splitlines()
        times = [json.loads(line)["ts"] for line in events]
        assert len(times) == len(set(times)) == sent
        assert times == sorted(times)
        parts = [set((tmp_path / x).read_text().splitlines()) for x in ("away", "comes")]
        assert parts[0] | parts[1] == set(events)
        assert run.end(signal.SIGINT) == 0


def test_sighup_with_a_sink_that_cannot_be_opened_changes_nothing(
    bed: TestBed, tmp_path: Path
) -> None:
    path = policy(tmp_path, '{ jsonl = "events" }')
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        policy(tmp_path, '{ jsonl = "events" }', '{ jsonl = "no/events" }')
        run.tell(signal.SIGHUP)
        run.said("the policy in force stays in force")
        send(bed, 5)
        until_written(bed, "events", 5)
        assert list(books(bed)) == ["events"]


def test_reload_by_another_process_with_a_sink_that_cannot_be_opened_tries_again(
    bed: TestBed, tmp_path: Path
) -> None:
    path = policy(tmp_path, '{ jsonl = "events" }')
    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        policy(tmp_path, '{ jsonl = "events" }', '{ binary = "no/bin" }')
        assert xdpgw(bed, "reload", path).returncode == 0
        run.said("it is tried again when there are events")
        send(bed, 5)
        until(lambda: books(bed).get("bin", {}).get("queued") == 5, "events that wait")
        (tmp_path / "no").mkdir()
        until_written(bed, "bin", 5)
        until_written(bed, "events", 5)
    assert len(binary.read(tmp_path / "no/bin")) == 5


def test_run_with_a_sink_that_cannot_be_opened_does_not_start(bed: TestBed, tmp_path: Path) -> None:
    done = xdpgw(bed, "run", policy(tmp_path, '{ jsonl = "no/events" }'))
    assert done.returncode == 1
    assert "cannot open the log" in done.stderr
    assert xdpgw(bed, "status").returncode == 1


def test_books_are_read_whole_while_they_are_written(bed: TestBed, tmp_path: Path) -> None:
    with running(bed, tmp_path, "run", policy(tmp_path, '"stdout"')) as run:
        run.said("left: attached")
        assert run.end() == 0
        with bed.gateway.entered():
            instance = Instance()
            board = SinkBoard(instance)
            for number in range(200):
                long = SinkStats('x"\\' * 2000, number, number, 0, "\x01" * 5000, number)
                board.publish([long] * 16, now=True)
                found = read_sinks(instance)
                assert len(found) == 16
                assert {(x.written, x.lost) for x in found} == {(number, number)}
            board.close()


def test_events_are_told_with_the_rules_that_wrote_them_whoever_replaces_the_policy(
    bed: TestBed, tmp_path: Path
) -> None:
    path = policy(tmp_path, '{ jsonl = "events" }')
    written = 0

    def rename(rule: str) -> None:
        path.write_text(re.sub(r"\w+ drop", f"{rule} drop", path.read_text()))

    def put(count: int) -> None:
        nonlocal written
        with bed.peer.entered():
            generate("left-peer", [FRAME], count=count, rate_pps=20_000)
        written += count
        until(lambda: data(bed, "status")["log"]["written"] == written, f"{written} events")

    with running(bed, tmp_path, "run", path) as run:
        run.said("left: attached")
        run.tell(signal.SIGSTOP)
        put(6000)  # more than it drains before it looks at its signals
        rename("ten")
        run.tell(signal.SIGHUP)
        run.tell(signal.SIGCONT)
        run.said("left: switched")
        until_written(bed, "events", 6000)  # a slot has another rule two reloads later

        run.tell(signal.SIGSTOP)
        put(20)
        rename("eleven")
        assert xdpgw(bed, "reload", path).returncode == 0
        put(20)
        run.tell(signal.SIGCONT)
        run.said("replaced by another process")

        until_written(bed, "events", 6040)
        run.end(signal.SIGKILL)
        put(20)
        rename("twelve")
        with running(bed, tmp_path, "run", path):
            until_written(bed, "events", 20)
    lines = (tmp_path / "events").read_text().splitlines()
    assert Counter(json.loads(line)["rule"] for line in lines) == {
        "nine": 6000,
        "ten": 20,
        "eleven": 40,
    }


def test_reload_by_another_process_keeps_the_sinks_of_a_policy_with_a_relative_name(
    bed: TestBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = policy(tmp_path, '{ jsonl = "events" }')
    monkeypatch.chdir(tmp_path)
    with running(bed, tmp_path, "run", path.name) as run:
        run.said("left: attached")
        send(bed, 5)
        until_written(bed, "events", 5)
        assert xdpgw(bed, "reload", path).returncode == 0
        run.said("replaced by another process")
        send(bed, 5)
        until_written(bed, "events", 10)
        assert "cannot open" not in run.err.read_text()
