"""All sinks against the contract of `xdpgw.sinks.Sink`, and what each promises beyond it."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xdpgw import sinks
from xdpgw._abi import Frag, Has, Reason, Verdict
from xdpgw.config import SinkSettings
from xdpgw.errors import XdpgwError
from xdpgw.sinks import Sink, SinkError, SinkGoneError, jsonl, stdout
from xdpgw.sinks.jsonl import JsonlSink
from xdpgw.sinks.stdout import StdoutSink

from .batches import UDP, batch

# The contract, over all files of xdpgw/sinks/


@pytest.fixture(params=sinks.kinds())
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> SinkSettings:
    path = None if request.param == "stdout" else tmp_path / "events"
    return SinkSettings(request.param, path)


def written(settings: SinkSettings, capfdbinary: pytest.CaptureFixture[bytes]) -> bytes:
    if settings.path is not None:
        return settings.path.read_bytes()
    return capfdbinary.readouterr().out


@pytest.fixture
def sink(settings: SinkSettings, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Sink]:
    made = sinks.make(settings)
    yield made
    made.close()


def test_all_kinds_are_found() -> None:
    assert sinks.kinds() == ["jsonl", "stdout"]


def test_sink_shows_each_event_once_after_flush(
    sink: Sink, settings: SinkSettings, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    sink.write(batch({"src": "192.0.2.1"}, {"src": "192.0.2.2"}))
    sink.write(batch({"src": "192.0.2.3"}))
    sink.flush()
    lines = written(settings, capfdbinary).splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert f"192.0.2.{number}".encode() in line


def test_sink_shows_all_after_close_and_closes_twice(
    sink: Sink, settings: SinkSettings, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    sink.write(batch({}))
    sink.close()
    sink.close()
    assert written(settings, capfdbinary).count(b"\n") == 1


def test_sink_leaves_the_batch_alone(sink: Sink) -> None:
    given = batch({}, {})
    before = given.events.tobytes()
    sink.write(given)
    assert given.events.tobytes() == before


def test_sink_has_a_name_that_tells_its_kind(sink: Sink, settings: SinkSettings) -> None:
    assert settings.kind in sink.name


def test_sink_takes_many_events_of_any_content(
    sink: Sink, settings: SinkSettings, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    odd: list[dict[str, Any]] = [
        {"family": 0, "has": 0, "frag": Frag.NOT_IP, "rule": 0xFFFF, "reason": Reason.DEFAULT},
        {"family": 6, "src": "2001:db8::1", "dst": "::", "proto": 58, "has": Has.PROTO | Has.ICMP},
        {"port": 63, "rule": 2047, "proto": 255},
    ]
    sink.write(batch(*odd * 1000))
    sink.flush()
    assert written(settings, capfdbinary).count(b"\n") == 3000


def test_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(XdpgwError, match="no such sink: carrier-pigeon") as error:
        sinks.make(SinkSettings("carrier-pigeon"))
    assert error.value.hint == "there are jsonl, stdout"


# stdout


def line_of(**changes: Any) -> str:
    stream = io.BytesIO()
    StdoutSink(stream=stream).write(batch(changes))
    return stream.getvalue().decode().removesuffix("\n")


def clock() -> str:
    return time.strftime("%H:%M:%S", time.localtime(1_700_000_000)) + ".123456"


def test_stdout_line_reads_as_documented() -> None:
    wanted = "eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74"
    assert line_of() == f"{clock()} {wanted}"


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"vlan": 7}, "vlan 7 192.0.2.7:53 > 198.51.100.1:4242 udp 74"),
        (
            {"family": 6, "src": "2001:db8::7", "dst": "2001:db8::1"},
            "[2001:db8::7]:53 > [2001:db8::1]:4242 udp 74",
        ),
        (
            {"proto": 6, "tcp_flags": 0x12, "has": UDP["has"] | Has.TCP_FLAGS},
            "192.0.2.7:53 > 198.51.100.1:4242 tcp syn,ack 74",
        ),
        (
            {"proto": 6, "tcp_flags": 0, "has": UDP["has"] | Has.TCP_FLAGS},
            "192.0.2.7:53 > 198.51.100.1:4242 tcp no flags 74",
        ),
        (
            {"proto": 1, "icmp_type": 3, "icmp_code": 13, "has": Has.PROTO | Has.ICMP},
            "192.0.2.7 > 198.51.100.1 icmp type 3 code 13 74",
        ),
        (
            {"frag": Frag.LATER, "has": Has.PROTO},
            "192.0.2.7 > 198.51.100.1 udp frag later 74",
        ),
        ({"proto": 200, "has": Has.PROTO}, "192.0.2.7 > 198.51.100.1 proto 200 74"),
        (
            {"family": 0, "ethertype": 0x0806, "has": Has.ETHERTYPE, "frag": Frag.NOT_IP},
            "rule bad        ether 0x0806 74",
        ),
        ({"family": 0, "has": 0, "frag": Frag.NOT_IP}, "rule bad        74"),
    ],
)
def test_stdout_line_shows_what_the_packet_has(changes: dict[str, Any], end: str) -> None:
    assert line_of(**changes).endswith(f" {end}")


def test_stdout_line_without_names_shows_slots() -> None:
    assert " port#9 pass  limit #5        192" in line_of(
        port=9, rule=5, verdict=Verdict.PASS, reason=Reason.LIMIT
    )


def test_stdout_line_without_a_rule_shows_the_reason() -> None:
    assert " drop  malformed       192" in line_of(rule=0xFFFF, reason=Reason.MALFORMED)


def test_stdout_style_sourceip_shows_just_addresses() -> None:
    stream = io.BytesIO()
    sink = StdoutSink("sourceip", stream)
    sink.write(batch({}, {"family": 0}, {"family": 6, "src": "2001:db8::7"}))
    sink.write(batch({"family": 0}))
    assert stream.getvalue() == b"192.0.2.7\n2001:db8::7\n"


def test_stdout_unknown_style_is_refused() -> None:
    with pytest.raises(XdpgwError, match="no such style"):
        sinks.make(SinkSettings("stdout", options={"style": "haiku"}))


def test_stdout_into_a_closed_pipe_is_gone_and_leaves_no_complaint() -> None:
    code = (
        "import sys\n"
        "from tests.unit.batches import batch\n"
        "from xdpgw.sinks import SinkGoneError\n"
        "from xdpgw.sinks.stdout import StdoutSink\n"
        "sink = StdoutSink()\n"
        "sys.stdin.read()\n"
        "try:\n"
        "    sink.write(batch({}))\n"
        "    sink.flush()\n"
        "except SinkGoneError:\n"
        "    print('gone', file=sys.stderr)\n"
        "print('nobody reads this')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    complaints = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), complaints) == (0, "gone\n")


def test_stdout_other_errors_are_not_taken_for_a_closed_pipe() -> None:
    class Full(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as error:
        StdoutSink(stream=Full()).write(batch({}))  # type: ignore[arg-type]
    assert not isinstance(error.value, SinkGoneError)


# jsonl


def sources(path: Path) -> list[str]:
    """The last number of each source address in a file of whole lines."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line)["src"].split(".")[-1] for line in data.splitlines()]


def numbered(*numbers: int) -> Any:
    return batch(*({"src": f"192.0.2.{number}"} for number in numbers))


LINE_BYTES = len(numbered(1).json_lines())


def test_jsonl_appends_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for number in (1, 2):
        sink = JsonlSink(path)
        sink.write(numbered(number))
        sink.close()
    assert sources(path) == ["1", "2"]


def test_jsonl_ends_the_line_that_a_crash_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b'{"cut')
    sink = JsonlSink(path)
    sink.write(numbered(1))
    sink.close()
    cut, line = path.read_bytes().splitlines()
    assert cut == b'{"cut'
    assert json.loads(line)["src"] == "192.0.2.1"


def test_jsonl_is_readable_by_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        JsonlSink(tmp_path / "events").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "events").stat().st_mode) == 0o640


def test_jsonl_rotates_before_it_grows_beyond_and_keeps_so_many(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, max_bytes=2 * LINE_BYTES, keep=2)
    for number in range(1, 8):
        sink.write(numbered(number))
    sink.close()
    assert sources(path) == ["7"]
    assert sources(tmp_path / "events.1") == ["5", "6"]
    assert sources(tmp_path / "events.2") == ["3", "4"]
    assert len(list(tmp_path.iterdir())) == 3


def test_jsonl_rotates_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, max_bytes=3 * LINE_BYTES + 7, keep=5)
    sink.write(numbered(*range(1, 9)))
    sink.close()
    found = [sources(tmp_path / name) for name in ("events.2", "events.1", "events")]
    assert found == [["1", "2", "3"], ["4", "5", "6"], ["7", "8"]]


def test_jsonl_keeps_nothing_where_told_so(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, max_bytes=LINE_BYTES, keep=0)
    sink.write(numbered(1, 2, 3))
    sink.close()
    assert sources(path) == ["3"]
    assert len(list(tmp_path.iterdir())) == 1


def test_jsonl_gives_a_line_that_is_too_long_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, max_bytes=10, keep=1)
    sink.write(numbered(1, 2))
    sink.close()
    assert (sources(tmp_path / "events.1"), sources(path)) == (["1"], ["2"])


@pytest.mark.parametrize("move", ["rename", "remove"])
def test_jsonl_follows_its_name_where_another_process_moves_the_file(
    tmp_path: Path, move: str
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path)
    sink.write(numbered(1))
    path.rename(tmp_path / "moved") if move == "rename" else path.unlink()
    sink.write(numbered(2))
    sink.close()
    assert sources(path) == ["2"]


def test_jsonl_on_a_full_disk_keeps_whole_lines_and_tells_what_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path)
    sink.write(numbered(1))
    room = [100]

    def write(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data[: room[0]])
        room[0] -= len(part)
        return real_write(fd, part)

    real_write = os.write
    monkeypatch.setattr(jsonl.os, "write", write)
    with pytest.raises(SinkError, match="No space left on device") as error:
        sink.write(numbered(2, 3, 4))
    assert error.value.lost == 3
    assert sources(path) == ["1"]
    room[0] = 1 << 20
    sink.write(numbered(5))
    sink.close()
    assert sources(path) == ["1", "5"]


def test_jsonl_that_fails_behind_a_rotation_counts_only_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    sink = JsonlSink(path, max_bytes=2 * LINE_BYTES, keep=3)

    def no_more(old: object, new: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(jsonl.os, "replace", no_more)
    with pytest.raises(SinkError) as error:
        sink.write(numbered(1, 2, 3, 4, 5))
    assert error.value.lost == 3
    sink.close()
    assert sources(path) == ["1", "2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")
def test_jsonl_recovers_when_a_full_file_system_has_room_again(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "t", str(tmp_path)], check=True)
    try:
        path, filler = tmp_path / "events", tmp_path / "filler"
        sink = JsonlSink(path)
        sink.write(numbered(1))
        filler.write_bytes(bytes(40 << 10))
        with pytest.raises(SinkError, match="No space left"):
            sink.write(numbered(*[2] * 200))
        assert sources(path) == ["1"]
        filler.unlink()
        sink.write(numbered(3))
        sink.close()
        assert sources(path) == ["1", "3"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_jsonl_that_cannot_be_opened_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(XdpgwError, match=f"cannot open the log {tmp_path}/no/events"):
        JsonlSink(tmp_path / "no" / "events")


def test_jsonl_without_a_file_is_refused() -> None:
    with pytest.raises(XdpgwError, match="needs a file"):
        sinks.make(SinkSettings("jsonl"))


def test_jsonl_takes_its_options(tmp_path: Path) -> None:
    options = {"max_bytes": LINE_BYTES, "keep": 1}
    sink = sinks.make(SinkSettings("jsonl", tmp_path / "events", options))
    sink.write(numbered(1, 2, 3))
    sink.close()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["events", "events.1"]


def test_stdout_and_jsonl_are_sinks() -> None:
    made: list[Sink] = [stdout.StdoutSink(stream=io.BytesIO())]
    assert made[0].name == "stdout"
