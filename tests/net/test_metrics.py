"""The metrics of a live filter, as Prometheus gets them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import frames as f
from tests.net.process import Running, data, running, until, xdpgw
from tests.repo.test_monitoring import PROMTOOL
from xdpgw.testbed import TestBed

POLICY = """
[policy]
rules = \"\"\"
few    limit 1/m burst 3     udp to port 9
nine   drop                  udp to port 9
tap    af_xdp tap else drop  udp to port 10
\"\"\"
[ports.left]
mode = "MODE"
[af_xdp.tap]
handler = "count"
[log]
sources = "every"
sinks = [{ jsonl = "events.jsonl" }]
[metrics]
listen = "127.0.0.1:0"
"""
NINE, TEN, ELEVEN = (f.eth(f.ipv4(f.udp(b"x", dport=port)), pad=60) for port in (9, 10, 11))


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


@pytest.fixture
def policy(tmp_path: Path, mode: str) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(POLICY.replace("MODE", mode))
    return path


def url_of(run: Running) -> str:
    """Where it said last that metrics are."""
    return re.findall(r"^metrics: (http://\S+)$", run.err.read_text(), re.M)[-1]


def scrape(bed: TestBed, url: str) -> str:
    """One scrape, from the namespace of the gateway."""

    def ask() -> str:
        try:
            with bed.gateway.entered(), urllib.request.urlopen(url, timeout=30) as answer:
                text: str = answer.read().decode()
                return text
        except ConnectionResetError:  # by a server that ends, as another one begins
            return ""

    found: str = until(ask, "a whole answer")
    return found


def values(text: str, name: str) -> dict[str, float]:
    """Samples of a metric that are not 0, by their label values."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M)
    return {",".join(re.findall(r'"([^"]*)"', x)): float(n) for x, n in found if float(n)}


def test_scrape_of_a_running_filter_agrees_with_its_books(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        url = url_of(run)
        wire.send([NINE] * 5 + [TEN] * 7 + [ELEVEN] * 2)

        def settled() -> str:
            text = scrape(bed, url)
            frames = values(text, "xdpgw_target_frames_total")
            written = values(text, "xdpgw_sink_events_total")
            return text if (sum(frames.values()), sum(written.values())) == (14, 14) else ""

        text = until(settled, "all that was sent is told")
        assert values(text, "xdpgw_packets_total") == {
            "left,rule,drop": 3,
            "left,limit,drop": 2,
            "left,rule,af_xdp": 7,
            "left,default,pass": 2,
        }
        assert values(text, "xdpgw_rule_packets_total") == {
            "limit,few": 2,
            "drop,nine": 3,
            "af_xdp,tap": 7,
        }
        assert values(text, "xdpgw_limit_dropped_total") == {"few": 2}
        assert values(text, "xdpgw_log_events_total") == {"due": 14, "written": 14}
        assert values(text, "xdpgw_in_charge") == values(text, "xdpgw_in_force") == {"": 1}
        assert values(text, "xdpgw_target_served") == {"tap": 1}
        assert values(text, "xdpgw_target_ring_size_descriptors")["left,0,rx,tap"] == 2048
        status = data(bed, "status")
        assert list(values(text, "xdpgw_port_mode")) == [f"{status['ports'][0]['mode']},left"]
        (loaded,) = values(text, "xdpgw_policy_loaded_timestamp_seconds").values()
        assert loaded == pytest.approx(status["loaded_at_ns"] / 1e9)
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, check=False,
                              capture_output=True)  # fmt: skip
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_metrics_of_an_orphaned_filter_and_of_none(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        assert xdpgw(bed, "block", "192.0.2.7", "192.0.2.8").returncode == 0
        wire.send([ELEVEN] * 2)
        until(lambda: values(scrape(bed, url_of(run)), "xdpgw_packets_total"), "counted")
        run.process.kill()
        run.process.wait()
        text = xdpgw(bed, "metrics").stdout
        assert values(text, "xdpgw_packets_total") == {"left,default,pass": 2}
        assert values(text, "xdpgw_in_charge") == {}
        assert values(text, "xdpgw_target_served") == {}
        assert values(text, "xdpgw_blocks") == {"": 2}
        assert "xdpgw_rule_packets_total{" in text
        assert "xdpgw_rule_packets_total{" not in xdpgw(bed, "metrics", "--no-rules").stdout
        assert {x["name"] for x in data(bed, "metrics")} >= {"xdpgw_in_force", "xdpgw_blocks"}
        xdpgw(bed, "unblock", "--all")
        xdpgw(bed, "detach")
        done = xdpgw(bed, "metrics")
        assert (done.returncode, values(done.stdout, "xdpgw_in_force")) == (0, {})
        assert "xdpgw_packets_total" not in done.stdout


def test_reload_takes_up_another_address_and_off(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        first = url_of(run)
        text = policy.read_text()

        def reload(listen: str, more: str = "") -> None:
            said = run.err.read_text().count("switched to the new policy")
            policy.write_text(text.replace('"127.0.0.1:0"', listen) + more)
            run.tell(signal.SIGHUP)
            until(
                lambda: run.err.read_text().count("switched to the new policy") > said, "reloaded"
            )

        reload('"127.0.0.1:0"', "rules = false\n")  # the same address: it goes on there
        until(lambda: "xdpgw_rule_packets" not in scrape(bed, first), "without rules")
        reload('"127.0.0.2:0"')
        until(lambda: url_of(run) != first, "another address")
        second = url_of(run)
        assert "xdpgw_rule_packets" in scrape(bed, second)
        with pytest.raises(OSError, match="refused"):
            scrape(bed, first)

        with bed.gateway.entered():
            taken = socket.create_server(("127.0.0.1", 0))
        with taken:
            reload(f'"127.0.0.1:{taken.getsockname()[1]}"')
            run.said(f"metrics: {second} still is served")
            assert "cannot listen for metrics on 127.0.0.1:" in run.err.read_text()
            assert "xdpgw_in_force 1.0" in scrape(bed, second)
        reload('"off"')

        def refused() -> bool:
            try:
                scrape(bed, second)
            except OSError:
                return True
            return False

        until(refused, "no endpoint any more")
        assert run.end() == 0
        assert "Traceback" not in run.err.read_text()


def test_address_that_is_taken_is_an_error_before_anything_is_attached(
    bed: TestBed, policy: Path
) -> None:
    with bed.gateway.entered():
        taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        port = taken.getsockname()[1]
        policy.write_text(policy.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        done = xdpgw(bed, "run", policy)
        assert done.returncode == 1
        assert f"cannot listen for metrics on 127.0.0.1:{port}: Address" in done.stderr
        assert "Traceback" not in done.stderr
        assert xdpgw(bed, "status").returncode == 1


def test_second_run_with_the_same_address_names_the_first(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        port = url_of(run).split(":")[2].split("/")[0]
        policy.write_text(policy.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        done = xdpgw(bed, "run", policy)
        assert done.returncode == 3
        assert f"pid {run.process.pid}" in done.stderr


def test_address_that_others_reach_is_a_warning(bed: TestBed, policy: Path) -> None:
    policy.write_text(policy.read_text().replace("127.0.0.1:0", "0.0.0.0:0"))
    done = xdpgw(bed, "check", policy)
    assert done.returncode == 0
    assert f"warning: {policy}:16:10: metrics tell all who can reach this address" in done.stderr
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        assert "warning: " in run.err.read_text()


def test_clients_that_hang_stop_neither_the_log_nor_the_end(bed: TestBed, policy: Path) -> None:
    with running(bed, policy.parent, "run", policy) as run, bed.wire() as wire:
        run.said("left: attached")
        host, port = url_of(run).split("/")[2].split(":")
        stop = threading.Event()
        with bed.gateway.entered():
            idle = [socket.create_connection((host, int(port))) for _ in range(30)]

        def ask() -> None:
            with bed.gateway.entered():
                while not stop.is_set():
                    try:
                        urllib.request.urlopen(url_of(run), timeout=30).close()
                    except OSError:
                        stop.wait(0.01)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        try:
            for _ in range(50):
                wire.send([NINE] * 100)
            events = policy.parent / "events.jsonl"
            until(lambda: events.read_text().count("\n") == 5000, "all events are written")
        finally:
            stop.set()
            for thread in asking:
                thread.join()
        assert run.end() == 0
        for each in idle:
            each.close()


def servers() -> set[int]:
    """Processes that serve metrics, of whatever filter."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"metrics_server import main" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
    return found


def test_server_that_is_killed_is_started_again_and_ends_with_its_filter(
    bed: TestBed, policy: Path
) -> None:
    before = servers()
    with running(bed, policy.parent, "run", policy) as run:
        run.said("left: attached")
        (mine,) = until(lambda: servers() - before, "a server")
        os.kill(mine, signal.SIGKILL)
        assert "xdpgw_in_force 1.0" in scrape(bed, url_of(run))  # waits for the next one
        run.said("the server of the metrics ended with -9: it is started again")
        (other,) = until(lambda: servers() - before - {mine}, "another server")
        run.process.kill()
        run.process.wait()
        until(lambda: other not in servers(), "the server ends with the process in charge")
