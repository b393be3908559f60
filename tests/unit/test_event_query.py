"""Questions to the log: what is found is what a plain reading of the JSON lines finds."""

from __future__ import annotations

import gzip
import ipaddress
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpgw import event_query
from xdpgw.errors import XdpgwError
from xdpgw.event_query import EventLog, Wanted
from xdpgw.literals import addresses
from xdpgw.sinks.binary import BinarySink
from xdpgw.sinks.sqlite import SqliteSink

from .batches import NOON_NS, batch, numbered
from .event_strategies import batches

MANY = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Line = dict[str, Any]


def written(path: Path, *told: Any) -> Path:
    sink = SqliteSink(path)
    for each in told:
        sink.write(each)
    sink.close()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    told = (numbered(1, 2, 3), numbered(2, 3), numbered(3))
    with EventLog(written(tmp_path / "events.db", *told)) as found:
        yield found


def lines(events: EventLog, wanted: Wanted, **options: Any) -> list[Line]:
    found = b"".join(x.json_lines() for x in events.batches(wanted, **options))
    return [json.loads(line) for line in found.splitlines()]


# What is found

PREFIXES = st.lists(
    st.sampled_from(
        (
            *("0.0.0.0/0", "10.0.0.0/24", "10.0.0.1", "255.255.255.255"),
            *("::/0", "::ffff:0:0/96", "a00::/8", "2001:db8::/32", "2001:db8::", "::1"),
        )
    ),
    max_size=2,
)
SPANS = st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)), max_size=2)


@st.composite
def questions(draw: st.DrawFn) -> Wanted:
    """Some filters, few at once, so that something is found now and then."""
    asked: dict[str, Any] = {}
    for name, values in {
        "src": PREFIXES.map(lambda words: tuple(p for w in words for p in addresses(w))),
        "dst": PREFIXES.map(lambda words: tuple(p for w in words for p in addresses(w))),
        "rule": st.sampled_from([("bad",), ("web", "bad"), ("none-such",)]),
        "verdict": st.sampled_from([("drop",), ("pass", "tx", "af_xdp")]),
        "reason": st.sampled_from([("rule",), ("limit", "malformed", "default")]),
        "port": st.sampled_from([("eth0",), ("wan", "lan")]),
        "proto": st.sampled_from([(6,), (1, 17, 58)]),
        "sport": SPANS.map(tuple),
        "dport": SPANS.map(tuple),
        "since_ns": st.integers(NOON_NS, NOON_NS + 10**12),
        "until_ns": st.integers(NOON_NS, NOON_NS + 10**12),
    }.items():
        if draw(st.integers(0, 4)) == 0:
            asked[name] = draw(values)
    return Wanted(**asked)


def fits(event: Line, ts_ns: int, wanted: Wanted) -> bool:
    """Whether an event is wanted, by its JSON line."""

    def within(address: str | None, prefixes: tuple[Any, ...]) -> bool:
        if not prefixes:
            return True
        if address is None:
            return False
        at = ipaddress.ip_address(address)
        return any(at in ipaddress.ip_network((n, b)) for f, n, b in _sized(prefixes, at.version))

    def spans(port: int | None, wanted_: tuple[tuple[int, int], ...]) -> bool:
        return not wanted_ or (port is not None and any(a <= port <= b for a, b in wanted_))

    return (
        (wanted.since_ns is None or ts_ns >= wanted.since_ns)
        and (wanted.until_ns is None or ts_ns < wanted.until_ns)
        and within(event["src"], wanted.src)
        and within(event["dst"], wanted.dst)
        and spans(event["sport"], wanted.sport)
        and spans(event["dport"], wanted.dport)
        and all(
            not getattr(wanted, name) or event[name] in getattr(wanted, name)
            for name in ("rule", "verdict", "reason", "port", "proto")
        )
    )


def _sized(prefixes: tuple[Any, ...], family: int) -> list[tuple[Any, Any, int]]:
    """Those of a family, with addresses that `ip_network` takes for that family."""
    made = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return [(f, made(number), bits) for f, number, bits in prefixes if f == family]


@MANY
@given(batches, st.lists(questions(), min_size=5, max_size=5))
def test_query_finds_what_a_plain_reading_finds(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]], asked: list[Wanted]
) -> None:
    told = batch(*changes)
    path = written(tmp_path_factory.mktemp("log") / "events.db", told)
    times = (told.events["ts_ns"].astype(int) + told.realtime_offset_ns).tolist()
    all_ = [json.loads(line) for line in told.json_lines().splitlines()]
    in_order = sorted(zip(times, range(len(all_)), all_, strict=True))
    with EventLog(path) as log:
        for wanted in [Wanted(), *asked]:
            fitting = [line for at, _, line in in_order if fits(line, at, wanted)]
            assert lines(log, wanted) == fitting
            assert log.count(wanted) == len(fitting)
            assert lines(log, wanted, limit=3) == fitting[-3:]
            groups = log.groups(wanted, ["src", "rule"], limit=None)
            assert {(x.key["src"], x.key["rule"]): x.events for x in groups} == Counter(
                (line["src"], line["rule"]) for line in fitting
            )
            assert sum(x.bytes for x in groups) == sum(line["len"] for line in fitting)


def test_query_in_many_pieces_finds_the_same(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lines(log, Wanted())
    monkeypatch.setattr(event_query, "_PIECE_ROWS", 2)
    monkeypatch.setattr(event_query, "_PIECE_IDS", 3)
    assert len(whole) == 6
    assert lines(log, Wanted()) == whole


def test_query_groups_come_top_first_and_only_so_many(log: EventLog) -> None:
    top = log.groups(Wanted(), ["src"], limit=2)
    assert [(x.key["src"], x.events, x.bytes) for x in top] == [
        ("192.0.2.3", 3, 222),
        ("192.0.2.2", 2, 148),
    ]
    assert top[0].first_ns == top[0].last_ns == NOON_NS


@pytest.mark.parametrize("prefix", ["192.0.2.0/30", "2001:db8::/32"])
def test_query_of_a_prefix_is_a_range_of_the_index(log: EventLog, prefix: str) -> None:
    where, bound = Wanted(src=tuple(addresses(prefix))).where()
    with closing(sqlite3.connect(log.path)) as db:
        plan = db.execute(f"EXPLAIN QUERY PLAN SELECT id FROM events WHERE {where}", bound)
        (row,) = plan.fetchall()
    assert (
        "SEARCH events USING COVERING INDEX events_src (ANY(<expr>) AND src>? AND src<?)" in row[3]
    )


@pytest.mark.parametrize(("few", "index"), [(100_000, "events_src"), (1, "events_ts_ns")])
def test_query_of_sources_and_times_uses_the_index_that_has_less_to_look_at(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, few: int, index: str
) -> None:
    monkeypatch.setattr(event_query, "_FEW_ROWS", few)
    asked: list[str] = []
    log._db.set_trace_callback(asked.append)
    wanted = Wanted(src=tuple(addresses("192.0.2.0/30")), since_ns=0)
    assert len(lines(log, wanted, limit=6)) == 6
    (query,) = (x for x in asked if "DESC" in x)
    with closing(sqlite3.connect(log.path)) as db:
        plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert f"INDEX {index} " in plan


def test_query_names_what_no_event_has(log: EventLog) -> None:
    assert log.unknown_names("rule", ["bad", "bda"]) == ["bda"]
    assert log.unknown_names("port", ["eth0"]) == []


def test_query_of_a_column_that_is_none_is_refused(log: EventLog) -> None:
    with pytest.raises(ValueError):
        log.groups(Wanted(), ["src; DROP TABLE events"], limit=1)


def test_query_that_is_half_read_holds_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_query, "_PIECE_ROWS", 1)
    path = written(tmp_path / "events.db", numbered(1, 2, 3))
    sink = SqliteSink(path, max_rows=1000)
    with EventLog(path) as log, closing(sqlite3.connect(path)) as other:
        found = log.batches(Wanted())
        next(found)
        sink.write(numbered(4))
        busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0
        other.execute("DELETE FROM events WHERE id = 2")
        other.commit()
        rest = [json.loads(x.json_lines())["src"] for x in found]
    sink.close()
    assert rest == ["192.0.2.3"]  # what was there when it was asked, and still is


def test_query_while_names_are_more_than_an_event_has_numbers_for(tmp_path: Path) -> None:
    path = written(tmp_path / "events.db", numbered(*range(200)), numbered(*range(200)))
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO ports VALUES (?, ?)", [(n, f"p{n}") for n in range(1000, 1400)])
        db.execute("UPDATE events SET port = 999 + id")
    with EventLog(path) as log:
        assert [x["port"] for x in lines(log, Wanted())] == [f"p{n}" for n in range(1000, 1400)]


# Own SQL


def answer(log: EventLog, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names and rows."""
    found: list[Any] = []
    log.sql(query, lambda names, rows: found.extend((names, list(rows))))
    names, rows = found
    return names, rows


WRITING = [
    "DELETE FROM events",
    "INSERT INTO rules VALUES (99, 'x')",
    "UPDATE events SET rule = NULL",
    "DROP VIEW log",
    "CREATE TABLE x (y)",
    "CREATE TEMP TABLE x (y)",
    "ATTACH '{folder}/evil' AS evil",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{folder}/evil'",
    "PRAGMA query_only = off",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA wal_checkpoint",
    "PRAGMA writable_schema = on",
    "BEGIN",
    "REINDEX",
    "ANALYZE",
    "SELECT load_extension('{folder}/evil')",
    "SELECT * FROM pragma_table_info('events')",
    "WITH x AS (SELECT 1) DELETE FROM events",
    "REPLACE INTO rules VALUES (1, 'x')",
]


@pytest.mark.parametrize("query", WRITING)
def test_sql_can_do_nothing_but_read(tmp_path: Path, query: str) -> None:
    path = written(tmp_path / "events.db", numbered(1, 2, 3))
    before = path.read_bytes()
    with EventLog(path) as log, pytest.raises(XdpgwError) as error:
        answer(log, query.format(folder=tmp_path))
    assert "authori" in str(error.value)
    assert path.read_bytes() == before
    assert not (tmp_path / "evil").exists()


def test_sql_reads_the_view_and_the_tables(log: EventLog) -> None:
    query = "SELECT src, count(*) AS n FROM log GROUP BY src ORDER BY n DESC LIMIT 1"
    assert answer(log, query) == (["src", "n"], [("192.0.2.3", 3)])
    assert answer(log, "SELECT name FROM rules") == (["name"], [("bad",)])


def test_sql_view_shows_ipv6_in_short(tmp_path: Path) -> None:
    told = batch({"family": 6, "src": "2001:db8::1", "dst": "::"})
    with EventLog(written(tmp_path / "events.db", told)) as log:
        assert answer(log, "SELECT src, dst FROM log")[1] == [("2001:db8::1", "::")]


@pytest.mark.parametrize("query", ["", "  -- nothing", "SELCT 1", "SELECT 1; SELECT 2", "SELECT x"])
def test_sql_that_is_no_query_is_a_sentence(log: EventLog, query: str) -> None:
    with pytest.raises(XdpgwError, match="--sql"):
        answer(log, query)


ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"


@pytest.mark.parametrize("what", ["max(x)", "x"])
def test_sql_without_an_end_is_ended(tmp_path: Path, what: str) -> None:
    path = written(tmp_path / "events.db", numbered(1))
    with (
        EventLog(path, timeout_s=0.2) as log,
        pytest.raises(XdpgwError, match=r"did not answer within 0\.2 s"),
    ):
        log.sql(ENDLESS.format(what), lambda names, rows: deque(rows, 0))


# Files


def test_log_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(XdpgwError, match="there is no log"):
        EventLog(tmp_path / "events.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"no log, but quite long\n" * 100, b"{}\n", b"\x1f\x8b", b"\0"])
def test_log_that_is_none_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(data)
    with pytest.raises(XdpgwError, match=r"no log of xdpgw|cannot read"):
        EventLog(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "binary"])
@MANY
@given(batches, questions())
def test_log_of_another_sink_answers_as_that_of_sqlite(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    changes: list[dict[str, Any]],
    wanted: Wanted,
) -> None:
    folder, told = tmp_path_factory.mktemp("log"), batch(*changes)
    path = folder / "events"
    if kind == "binary":
        with closing(BinarySink(path)) as sink:
            sink.write(told)
    else:
        pack = gzip.compress if kind == "jsonl.gz" else bytes
        path.write_bytes(pack(told.json_lines()))
    with EventLog(path) as log, EventLog(written(folder / "events.db", told)) as database:
        assert log.notes == []
        assert lines(log, wanted) == lines(database, wanted)
        assert log.groups(wanted, ["src"], limit=None) == database.groups(
            wanted, ["src"], limit=None
        )


def test_log_in_several_files_is_one(tmp_path: Path) -> None:
    paths = [tmp_path / "events.jsonl", tmp_path / "events.bin"]
    paths[0].write_bytes(numbered(1, 2).json_lines() + b'{"ts":"2026-\n' + numbered(3).json_lines())
    with closing(BinarySink(paths[1])) as sink:
        sink.write(numbered(4))
    with EventLog(*paths) as log:
        assert [x["src"][-1] for x in lines(log, Wanted())] == ["1", "2", "3", "4"]
        assert log.notes == [f"{paths[0]}: 1 of 4 lines are no events"]
    with pytest.raises(XdpgwError, match="one SQLite file can be asked at a time"):
        EventLog(*paths, written(tmp_path / "events.db", numbered(5)))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("ttl", 256),
        ("queue", -1),
        ("sport", 70000),
        ("len", None),
        ("len", 2**70),
        ("vlan", "a"),
        ("frag", "maybe"),
        ("src", "192.0.2"),
        ("rule", ["a"]),
        ("ts", "9999-12-31T23:59:59.000000000Z"),
        ("ts", "0001-01-01T00:00:00.000000000Z"),
        ("ts", "2026"),
    ],
)
def test_line_with_what_no_event_has_is_none(tmp_path: Path, member: str, value: object) -> None:
    path, line = tmp_path / "events.jsonl", numbered(1).json_lines()
    wrong = json.dumps({**json.loads(line), member: value}).encode()
    path.write_bytes(line + wrong + b"\n")
    with EventLog(path) as log:
        assert len(lines(log, Wanted())) == 1
        assert log.notes == [f"{path}: 1 of 2 lines are no events"]


def test_record_that_no_event_could_be_is_none(tmp_path: Path) -> None:
    path = tmp_path / "events.bin"
    with closing(BinarySink(path)) as sink:
        sink.write(numbered(1))
    with path.open("ab") as file:
        file.write(b"\xff" * 200)
    with EventLog(path) as log:
        assert len(lines(log, Wanted())) == 1
        assert log.notes == [f"{path}: 2 of 3 records are no events"]


def test_segment_with_a_layout_that_cannot_be_is_none(tmp_path: Path) -> None:
    path = tmp_path / "events.bin"
    with closing(BinarySink(path)) as sink:
        sink.write(numbered(1))
    path.write_bytes(path.read_bytes().replace(b'"itemsize":72', b'"itemsize":71'))
    with pytest.raises(XdpgwError, match="is no segment of events"):
        EventLog(path)


def test_log_asked_for_what_is_not_utf8_says_so(tmp_path: Path) -> None:
    with (
        EventLog(written(tmp_path / "events.db", numbered(1))) as log,
        pytest.raises(XdpgwError, match="not UTF-8"),
    ):
        log.count(Wanted(rule=("\udcff",)))


def test_log_without_an_event_is_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    with EventLog(path) as log:
        assert log.count(Wanted()) == 0


def test_log_with_an_odd_name_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "odd ?mode=rwc#%41.db", numbered(1))
    with EventLog(path) as log:
        assert log.count(Wanted()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("in_use", [True, False])
def test_log_is_read_by_a_member_of_its_group(in_use: bool) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from xdpgw.event_query import EventLog, Wanted\n"
        "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "with EventLog(Path(sys.argv[1])) as log:\n"
        "    print(log.count(Wanted()))\n"
    )
    with TemporaryDirectory() as folder:  # not below those of pytest, which are root's alone
        Path(folder).chmod(0o755)
        path = Path(folder) / "events.db"
        with closing(SqliteSink(path)) as sink:
            sink.write(numbered(1, 2))
            if not in_use:
                sink.close()
            for each in Path(folder).iterdir():
                os.chown(each, 0, 65534)
            command = [sys.executable, "-c", code, path]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_log_of_a_version_with_other_verdicts_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "events.db", numbered(1))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO verdicts VALUES (9, 'teleport')")
    with pytest.raises(XdpgwError, match="does not know: teleport"):
        EventLog(path)


def test_log_that_is_damaged_is_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "events.db", numbered(*range(200)))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 65536)
    with pytest.raises(XdpgwError, match="malformed"), EventLog(path) as log:
        lines(log, Wanted())
