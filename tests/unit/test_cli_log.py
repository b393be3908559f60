"""`xdpgw log query`, as far as it goes without a filter in force."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.net.process import until
from xdpgw.events import EventBatch
from xdpgw.sinks.sqlite import SqliteSink

from .batches import batch, numbered
from .test_cli import xdpgw
from .test_event_query import ENDLESS

POLICY = """
[ports.eth0]
[log]
sinks = [SINKS]
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.db"
    sink = SqliteSink(path)
    sink.write(batch({"src": "192.0.2.1"}, {"family": 6, "src": "2001:db8::7", "dst": "::1"}))
    now = EventBatch(numbered(9).events, numbered(9).names, time.time_ns() - 60 * 10**9)
    sink.write(now)
    sink.close()
    return path


def told(capfdbinary: pytest.CaptureFixture[bytes], *args: object) -> str:
    """What the command prints; it succeeds and complains of nothing."""
    assert xdpgw("log", "query", *args) == 0
    out, err = capfdbinary.readouterr()
    assert err == b""
    return out.decode()


def sources(text: str) -> list[str]:
    return [json.loads(line)["src"] for line in text.splitlines()]


def test_log_query_prints_lines_with_date(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        first, second, _ = told(capfdbinary, log).splitlines()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert first == (
        "2023-11-14 22:13:20.123456 "
        "eth0 drop  rule bad        192.0.2.1:53 > 198.51.100.1:4242 udp 74"
    )
    assert "[2001:db8::7]:53 > [::1]:4242" in second


def test_log_query_json_is_what_the_sink_jsonl_writes(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    wanted = batch({"src": "192.0.2.1"}).json_lines().decode()
    assert told(capfdbinary, log, "--json", "--src", "192.0.2.1") == wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--since", "1h"], ["192.0.2.9"]),
        (["--until", "1h"], ["192.0.2.1", "2001:db8::7"]),
        (["--since", "2023-11-14T22:13:20.123456Z"], ["192.0.2.1", "2001:db8::7", "192.0.2.9"]),
        (["--since", "2023-11-14T22:13:20.123457Z"], ["192.0.2.9"]),
        (["--until", "2023-11-14T23:13:21+01:00"], ["192.0.2.1", "2001:db8::7"]),
        (["--src", "2001:db8::/32", "--src", "192.0.2.0/29"], ["192.0.2.1", "2001:db8::7"]),
        (["--src", "192.0.2.1-192.0.2.9"], ["192.0.2.1", "192.0.2.9"]),
        (["--limit", "2"], ["2001:db8::7", "192.0.2.9"]),
        (["--proto", "tcp"], []),
        (["--proto", "17", "--sport", "50-60", "--verdict", "drop", "--limit", "1"], ["192.0.2.9"]),
        (["--rule", "bad", "--port", "eth0", "--reason", "rule", "--dst", "::1"], ["2001:db8::7"]),
    ],
)
def test_log_query_filters(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes], options: list[str], wanted: list[str]
) -> None:
    assert sources(told(capfdbinary, log, "--json", *options)) == wanted


def test_log_query_counts(log: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert told(capfdbinary, log, "--count", "--since", "1h") == "1\n"
    assert json.loads(told(capfdbinary, log, "--count", "--json")) == {"events": 3}


def test_log_query_by_prints_a_table_and_json(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    heading, row = told(capfdbinary, log, "--by", "rule", "--by", "verdict").splitlines()
    assert heading.split() == ["events", "bytes", "first", "last", "rule", "verdict"]
    assert (row.split()[:2], row.split()[-2:]) == (["3", "222"], ["bad", "drop"])
    shown = json.loads(told(capfdbinary, log, "--by", "src", "--limit", "1", "--json"))
    assert (shown["src"], shown["events"], shown["bytes"]) == ("192.0.2.1", 1, 74)


def test_log_query_sql_prints_columns(log: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    query = "SELECT src, rule, NULL AS none FROM log WHERE family = 6"
    assert told(capfdbinary, log, "--sql", query) == "src\trule\tnone\n2001:db8::7\tbad\t\n"
    shown = told(capfdbinary, log, "--sql", "SELECT src FROM events WHERE src > 1e12", "--json")
    assert json.loads(shown) == {"src": "20010db8000000000000000000000007"}


def test_log_query_sql_json_with_two_columns_of_a_name_is_refused(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert xdpgw("log", "query", log, "--json", "--sql", "SELECT src, src FROM log") == 1
    assert "give each its own by AS" in capsys.readouterr().err


def test_log_query_tells_of_a_name_that_no_event_has(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert xdpgw("log", "query", log, "--rule", "bda") == 0
    assert capsys.readouterr().err == "note: no event of this log has the rule bda\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--src", "192.0.2.1/24"], "write 192.0.2.0/24"),
        (["--verdict", "dorp"], 'did you mean "drop"?'),
        (["--reason", "x"], "is not known"),
        (["--proto", "256"], "write 0 to 255"),
        (["--dport", "70000"], "out of range"),
        (["--since", "yesterday"], "write 1h, or 2026-03-01T10:00:00Z"),
        (["--by", "colour"], "is not one of"),
        (["--sql", "SELECT 1", "--count"], "--sql says all itself"),
        (["--count", "--limit", "3"], "--count goes without"),
        (["--timeout", "0s"], "out of range"),
        (["--policy", "edge.toml"], "not both"),
    ],
)
def test_log_query_with_a_wrong_option_says_what_to_write(
    log: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    assert xdpgw("log", "query", log, *options) == 2
    assert complaint in capsys.readouterr().err


def test_log_query_finds_the_file_of_a_policy(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    policy = log.parent / "edge.toml"
    policy.write_text(POLICY.replace("SINKS", '"stdout", { sqlite = "events.db" }'))
    assert told(capfdbinary, "--policy", policy, "--count") == "3\n"
    for sinks, complaint in (
        ('"stdout"', b"has no sink sqlite"),
        ('{ sqlite = "a.db" }, { sqlite = "b.db" }', b"has 2 sinks sqlite"),
    ):
        policy.write_text(POLICY.replace("SINKS", sinks))
        assert xdpgw("log", "query", "--policy", policy) == 1
        assert complaint in capfdbinary.readouterr().err


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "xdpgw", "log", "query", *map(str, args)]


def test_log_query_into_a_closed_pipe_is_quiet(log: Path) -> None:
    sink = SqliteSink(log)
    sink.write(numbered(*[1] * 20_000))
    sink.close()
    process = subprocess.Popen(command(log), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_log_query_is_ended_by_ctrl_c_in_the_middle_of_a_search(log: Path) -> None:
    query = ENDLESS.format("x") + " WHERE x = 1 OR x % 1000000 = 0"
    process = subprocess.Popen(
        command(log, "--sql", query), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    # It prints nothing until it is full: what it searches is told by its CPU time.
    stat = Path(f"/proc/{process.pid}/stat")
    ticks = os.sysconf("SC_CLK_TCK")
    until(
        lambda: process.poll() is not None or int(stat.read_text().split()[13]) >= ticks,
        "a second of searching",
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, b"")
    assert out.startswith(b"x\n1\n")


def test_log_query_sql_that_nobody_reads_lets_go_of_the_file(log: Path) -> None:
    sink = SqliteSink(log)
    sink.write(numbered(*[1] * 500))
    query = "SELECT a.src FROM events AS a, events AS b, events AS c"
    process = subprocess.Popen(
        command(log, "--sql", query, "--timeout", "1s"), stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.read(4) == b"src\n"  # from here on the pipe fills
    sink.write(numbered(2))

    def free() -> bool:
        with closing(sqlite3.connect(log)) as db:
            busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    until(free, "nobody reads the state of then")
    sink.close()
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    ("since", "until"), [("0001-01-02", "9999-12-30"), ("1900-01-01", "2300-01-01")]
)
def test_log_query_takes_times_beyond_all_events(
    log: Path, capfdbinary: pytest.CaptureFixture[bytes], since: str, until: str
) -> None:
    assert told(capfdbinary, log, "--since", since, "--until", until, "--count") == "3\n"
