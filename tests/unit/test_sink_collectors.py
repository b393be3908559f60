"""The sinks journald and syslog: what they send, and to whom that may happen to be gone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.net.process import until
from xdpgw import collector
from xdpgw._abi import Has
from xdpgw.collector import Collector
from xdpgw.config import SinkSettings
from xdpgw.events import EventBatch, Names, Pump
from xdpgw.literals import Wrong
from xdpgw.sinks import SinkError
from xdpgw.sinks.journald import JournaldSink
from xdpgw.sinks.syslog import SyslogSink

from .batches import batch, numbered
from .listeners import Counted, UdpDatagrams, UnixDatagrams
from .sink_adapters.journald import entry
from .sink_adapters.syslog import MESSAGE, data_of

# journald


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[UnixDatagrams]:
    made = UnixDatagrams(tmp_path / "socket")
    yield made
    made.stop()


def test_journald_entry_has_a_field_for_each_member(journal: UnixDatagrams, tmp_path: Path) -> None:
    sink = JournaldSink(tmp_path / "socket")
    sink.write(batch({"vlan": 7}))
    sink.close()
    (found,) = until(lambda: journal.heard, "a datagram")
    assert entry(found) == {
        "MESSAGE": "eth0 drop  rule bad        vlan 7 192.0.2.7:53 > 198.51.100.1:4242 udp 74",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "xdpgw",
        "XDPGW_TS": "2023-11-14T22:13:20.123456789Z",
        "XDPGW_PORT": "eth0",
        "XDPGW_QUEUE": "0",
        "XDPGW_FAMILY": "4",
        "XDPGW_SRC": "192.0.2.7",
        "XDPGW_DST": "198.51.100.1",
        "XDPGW_PROTO": "17",
        "XDPGW_SPORT": "53",
        "XDPGW_DPORT": "4242",
        "XDPGW_FRAG": "no",
        "XDPGW_TTL": "0",
        "XDPGW_DSCP": "0",
        "XDPGW_VLAN": "7",
        "XDPGW_ETHERTYPE": "2048",
        "XDPGW_LEN": "74",
        "XDPGW_VERDICT": "drop",
        "XDPGW_REASON": "rule",
        "XDPGW_RULE": "bad",
    }


def test_journald_leaves_out_what_a_packet_does_not_have(
    journal: UnixDatagrams, tmp_path: Path
) -> None:
    sink = JournaldSink(tmp_path / "socket")
    sink.write(batch({"has": Has(0), "family": 0, "rule": 0xFFFF}))
    sink.close()
    (found,) = until(lambda: journal.heard, "a datagram")
    assert not {"XDPGW_SRC", "XDPGW_SPORT", "XDPGW_RULE", "XDPGW_VLAN"} & set(entry(found))


def test_journald_field_names_are_such_as_journald_keeps(
    journal: UnixDatagrams, tmp_path: Path
) -> None:
    """Upper case, digits and _, no _ in front, 64 at most; others it drops in silence."""
    sink = JournaldSink(tmp_path / "socket")
    sink.write(batch({}))
    sink.close()
    (found,) = until(lambda: journal.heard, "a datagram")
    for name in entry(found):
        assert name.replace("_", "A").isalnum() and name.isupper() and len(name) <= 64
        assert name[0].isalpha()


def test_journald_that_is_not_there_keeps_all(tmp_path: Path) -> None:
    sink = JournaldSink(tmp_path / "socket")
    with pytest.raises(SinkError, match="socket: No such file or directory") as error:
        sink.write(numbered(1, 2))
    assert (error.value.lost, error.value.left) == (0, 2)
    sink.close()


def test_journald_that_reads_nothing_is_said_to_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PATIENCE_S", 0.05)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(path))
        sink, given = JournaldSink(path), numbered(*[n % 250 for n in range(1000)])
        with pytest.raises(SinkError, match="it takes nothing") as error:
            sink.write(given)
        assert 0 < error.value.left < 1000
        stuck.settimeout(0.05)
        found: list[str] = []

        def read() -> None:
            while len(found) < 1000:
                with suppress(TimeoutError):
                    found.append(entry(stuck.recv(65536))["XDPGW_SRC"].split(".")[-1])

        reader = threading.Thread(target=read)
        reader.start()
        left: EventBatch | None = given.last(error.value.left)
        while left is not None:
            try:
                sink.write(left)
                left = None
            except SinkError as again:
                left = left.last(again.left)
        reader.join()
        sink.close()
    assert found == [str(n % 250) for n in range(1000)]


# syslog


def test_syslog_message_is_of_rfc_5424() -> None:
    listener = UdpDatagrams()
    sink = SyslogSink(f"udp:127.0.0.1:{listener.port}", "authpriv")
    sink.write(batch({}))
    sink.close()
    until(lambda: listener.heard, "a message")
    listener.stop()
    found = MESSAGE.fullmatch(listener.heard[0].decode())
    assert found is not None
    assert int(found["priority"]) == 10 * 8 + 6
    assert found["time"] == "2023-11-14T22:13:20.123456Z"
    assert found["host"] == socket.gethostname()
    assert int(found["pid"]) == os.getpid()
    assert found["text"] == "eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74"
    assert data_of(listener.heard[0])["rule"] == "bad"


def test_syslog_quotes_what_would_end_a_value() -> None:
    listener = UdpDatagrams()
    sink = SyslogSink(f"udp:127.0.0.1:{listener.port}")
    sink.write(EventBatch(numbered(1).events, Names(['e"]\\t'], []), 0))
    sink.close()
    until(lambda: listener.heard, "a message")
    listener.stop()
    assert b'port="e\\"\\]\\\\t"' in listener.heard[0]
    assert MESSAGE.fullmatch(listener.heard[0].decode())


def test_syslog_to_a_unix_socket_is_what_the_c_library_would_write(tmp_path: Path) -> None:
    listener = UnixDatagrams(tmp_path / "log")
    sink = SyslogSink(str(tmp_path / "log"))
    sink.write(numbered(7))
    sink.close()
    until(lambda: listener.heard, "a message")
    listener.stop()
    when = time.strftime("%b %e %H:%M:%S", time.localtime(1_700_000_000))
    text = "eth0 drop  rule bad        192.0.2.7:53 > 198.51.100.1:4242 udp 74"
    assert listener.heard[0].decode() == f"<134>{when} xdpgw[{os.getpid()}]: {text}"


def test_syslog_by_tcp_stuck_in_a_message_goes_on_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sink = SyslogSink(f"tcp:127.0.0.1:{server.getsockname()[1]}")
        given: EventBatch | None = batch(
            *({"src": f"10.0.{n >> 8}.{n & 255}"} for n in range(12_000))
        )
        data = bytearray()
        peer: socket.socket | None = None
        stops = 0
        while given is not None:
            try:
                sink.write(given)
                given = None
            except SinkError as error:
                assert error.lost == 0
                stops += 1
                given = given.last(error.left)
                peer = peer or server.accept()[0]
                data += peer.recv(1 << 20)
        sink.close()
        assert peer is not None and stops > 1
        while part := peer.recv(1 << 20):
            data += part
        peer.close()
    found, at = [], 0
    while at < len(data):
        begin = data.index(b" ", at) + 1
        at = begin + int(data[at : begin - 1])
        found.append(data_of(data[begin:at])["src"])
    assert found == [f"10.0.{n >> 8}.{n & 255}" for n in range(12_000)]


def test_syslog_by_tcp_sees_that_the_far_end_hung_up_before_it_sends() -> None:
    listener = Counted()
    sink = SyslogSink(f"tcp:127.0.0.1:{listener.port}")
    sink.write(numbered(1))
    until(lambda: len(listener.heard) == 1, "a message")
    listener.stop()
    with pytest.raises(SinkError, match="Connection reset") as error:
        sink.write(numbered(2))
    assert (error.value.lost, error.value.left) == (0, 1)
    with pytest.raises(SinkError, match="Connection refused"):
        sink.write(numbered(2))
    listener.start()
    sink.write(numbered(2))
    until(lambda: len(listener.heard) == 2, "another")
    sink.close()
    listener.stop()


@pytest.mark.parametrize("size", [1, 3])
def test_syslog_by_udp_that_is_refused_keeps_what_it_can(size: int) -> None:
    listener = UdpDatagrams()
    said: list[str] = []
    settings = SinkSettings("syslog", None, {"to": f"udp:127.0.0.1:{listener.port}"})
    with Pump.of([settings], on_error=said.append) as pump:
        pump.put(numbered(1))
        until(lambda: len(listener.heard) == 1, "a message")
        listener.stop()
        for _ in range(4):
            pump.put(numbered(*range(2, 2 + size)))
        until(lambda: pump.stats[0].failing, "a complaint")
        listener.start()
        until(lambda: not pump.stats[0].queued, "the rest")
        (books,) = pump.stats
        assert (books.written, books.lost) == (1 + 4 * size, 0)
    until(lambda: len(listener.heard) == books.written, "all of it")
    listener.stop()
    begins, ends = said
    assert begins.endswith("Connection refused")
    assert ends.endswith("is well again; it has lost 0 events so far")


def test_udp_collector_that_goes_within_a_batch_costs_the_datagram_that_tells_it() -> None:
    listener = UdpDatagrams()
    made: list[socket.socket] = []

    class Going(socket.socket):
        def send(self, data: Any, flags: int = 0) -> int:
            made.append(self)
            if len(made) == 3:
                listener.stop()
            return super().send(data, flags)

    def connect() -> socket.socket:
        found = Going(socket.AF_INET, socket.SOCK_DGRAM)
        found.connect(("127.0.0.1", listener.port))
        return found

    to = Collector("x", connect)
    with pytest.raises(SinkError, match="refused") as error:
        to.send([b"%d" % n for n in range(10)])
    to.close()
    assert (error.value.lost, error.value.left) == (1, 7)
    assert listener.heard == [b"0", b"1"]


def test_collector_gives_up_a_message_that_is_too_long(tmp_path: Path) -> None:
    listener = UdpDatagrams()
    to = Collector("x", lambda: collector.udp_datagrams("127.0.0.1", listener.port))
    with pytest.raises(SinkError, match="Message too long") as error:
        to.send([b"a", b"b" * 70_000, b"c"])
    assert (error.value.lost, error.value.left) == (1, 1)
    to.send([b"c"])
    to.close()
    until(lambda: listener.heard == [b"a", b"c"], "both others")
    listener.stop()


@pytest.mark.parametrize("word", ["", "log", "udp:", "udp:host", "tcp:host:0", "tcp:::1:514"])
def test_syslog_to_nowhere_is_refused(word: str) -> None:
    with pytest.raises(Wrong):
        SyslogSink(word)


def test_syslog_takes_an_ipv6_address_in_brackets() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
        far.bind(("::1", 0))
        far.settimeout(10)
        sink = SyslogSink(f"udp:[::1]:{far.getsockname()[1]}")
        sink.write(numbered(1))
        sink.close()
        assert data_of(far.recv(65536))["src"] == "192.0.2.1"


# A real rsyslog

RSYSLOG = """
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imuxsock" Socket="{folder}/log")
template(name="j" type="list") {{ property(name="jsonmesg") constant(value="\\n") }}
*.* action(type="omfile" file="{folder}/out" template="j")
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


class Rsyslog:
    """rsyslogd with a configuration of its own, in the foreground."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.udp, self.tcp = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        conf = RSYSLOG.format(udp=self.udp, tcp=self.tcp, folder=folder)
        (folder / "conf").write_text(conf)
        self.start()

    def start(self) -> None:
        with (self._folder / "err").open("ab") as err:
            self._process = subprocess.Popen(
                ["rsyslogd", "-n", "-f", self._folder / "conf", "-i", self._folder / "pid"],
                stderr=err,
            )
        until((self._folder / "log").exists, "the socket of rsyslogd")
        until(self._listens, "rsyslogd on TCP")

    def _listens(self) -> bool:
        with socket.socket() as any_socket:
            return any_socket.connect_ex(("127.0.0.1", self.tcp)) == 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def messages(self, count: int) -> list[dict[str, str]]:
        out = self._folder / "out"

        def lines() -> list[str]:
            text = out.read_text() if out.exists() else ""
            found = [x for x in text.splitlines() if "xdpgw" in x]
            return found if len(found) >= count else []

        return [json.loads(x) for x in until(lines, f"{count} messages")]


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    if shutil.which("rsyslogd") is None:
        pytest.skip("no rsyslogd; make test installs it")
    made = Rsyslog(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_rsyslog_reads_every_part_of_a_message(rsyslog: Rsyslog, way: str) -> None:
    sink = SyslogSink(f"{way}:127.0.0.1:{getattr(rsyslog, way)}", "local3")
    sink.write(batch({"src": "192.0.2.1"}, {"family": 6, "src": "2001:db8::1", "dst": "::"}))
    sink.close()
    first, second = rsyslog.messages(2)
    assert (first["inputname"], first["protocol-version"]) == (f"im{way}", "1")
    assert (first["app-name"], first["procid"], first["msgid"]) == (
        "xdpgw",
        str(os.getpid()),
        "event",
    )
    assert (first["syslogfacility"], first["syslogseverity"]) == ("19", "6")
    assert first["timereported"] == "2023-11-14T22:13:20.123456Z"
    assert first["hostname"] == socket.gethostname()
    assert 'src="192.0.2.1" dst="198.51.100.1"' in first["structured-data"]
    assert first["msg"] == "eth0 drop  rule bad        192.0.2.1:53 > 198.51.100.1:4242 udp 74"
    assert 'src="2001:db8::1"' in second["structured-data"]


def test_rsyslog_reads_what_comes_by_its_unix_socket(rsyslog: Rsyslog, tmp_path: Path) -> None:
    sink = SyslogSink(str(tmp_path / "log"), "local3")
    sink.write(numbered(1))
    sink.close()
    (found,) = rsyslog.messages(1)
    assert (found["programname"], found["procid"]) == ("xdpgw", str(os.getpid()))
    assert (found["syslogfacility"], found["syslogseverity"]) == ("19", "6")
    assert found["msg"].strip().startswith("eth0 drop  rule bad        192.0.2.1:53 > ")


def test_rsyslog_that_restarts_misses_nothing(rsyslog: Rsyslog) -> None:
    said: list[str] = []
    settings = SinkSettings("syslog", None, {"to": f"tcp:127.0.0.1:{rsyslog.tcp}"})
    with Pump.of([settings], on_error=said.append) as pump:
        pump.put(numbered(1, 2, 3))
        rsyslog.messages(3)
        rsyslog.stop()
        pump.put(numbered(4))
        until(lambda: pump.stats[0].failing, "a complaint")
        pump.put(numbered(5))
        rsyslog.start()
        until(lambda: pump.stats[0].written == 5, "all written")
    found = [
        x["structured-data"].partition('src="')[2].partition('"')[0] for x in rsyslog.messages(5)
    ]
    assert found == [f"192.0.2.{n}" for n in range(1, 6)]
    assert len(said) == 2
