"""`xdpgw sources` on a live port: exact, over reloads, and until Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT

import pytest

from tests.frames import arp, eth, ipv4, ipv6, udp
from tests.net.live import Live, live
from tests.net.process import Running, data, until, xdpgw
from tests.unit.test_geo import NUMBER, WHERE, database
from xdpgw import config, gateway
from xdpgw._abi import Reason, Verdict
from xdpgw.errors import KernelError
from xdpgw.kernel import Link
from xdpgw.render import applied_text
from xdpgw.talkers import read_talkers
from xdpgw.testbed import TestBed

POLICY = """
[policy]
default = "pass"
rules = "bad drop from 10.7.0.3"
[ports.left]
mode = "MODE"
[log]
sources = "off"
[sources]
SOURCES
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


def policy(mode: str, sources: str = "") -> str:
    return POLICY.replace("MODE", mode).replace("SOURCES", sources)


def packets(count: int, source: str) -> list[bytes]:
    segment = udp(bytes(20), dport=9)
    layer = ipv6(segment, src=source) if ":" in source else ipv4(segment, src=source)
    return [eth(layer)] * count


def shown(gate: Live, *words: object) -> dict[str, int]:
    return {row["source"]: row["packets"] for row in data(gate.bed, "sources", *words)["sources"]}


def test_sources_are_told_with_what_each_sent(mode: str, bed: TestBed) -> None:
    with live(policy(mode), bed) as gate:
        gate.send([*packets(5, "10.7.0.1"), *packets(7, "10.7.0.3"), *packets(2, "2001:db8::7")])
        malformed, unread = eth(ipv4(udp(length=4), src="10.7.0.4")), eth(ipv4(udp(), ihl=4))
        gate.send([eth(arp()), unread, malformed])
        told = data(bed, "sources")
        rows = {row["source"]: row for row in told["sources"]}
        assert [*rows] == ["10.7.0.3", "10.7.0.1", "2001:db8::7", "10.7.0.4"]
        bad = rows["10.7.0.3"]
        assert (bad["packets"], bad["bytes"], bad["dropped"]) == (7, 7 * 62, 7)
        assert (bad["verdict"], bad["reason"], bad["port"]) == ("drop", "rule", "left")
        assert rows["10.7.0.4"]["reason"] == "malformed"
        assert rows["10.7.0.1"]["dropped"] == 0
        assert all(0 <= told["at_ns"] - row["last_ns"] < 60e9 for row in rows.values())
        # All that the port received, but for what has no source.
        assert told["known"]["packets"] == gate.books().received - 2
        assert told["gone"] == {"packets": 0, "bytes": 0, "sources": 0}


def test_sources_can_be_chosen_and_ordered(mode: str, bed: TestBed) -> None:
    with live(policy(mode), bed) as gate:
        gate.send([*packets(2, "10.7.0.1"), *packets(1, "10.7.0.3"), *packets(3, "10.8.0.1")])
        gate.send(packets(1, "2001:db8::7"))
        assert [*shown(gate, "--top", 2)] == ["10.8.0.1", "10.7.0.1"]
        assert next(iter(shown(gate, "--by", "dropped"))) == "10.7.0.3"
        assert [*shown(gate, "--by", "last", "--top", 1)] == ["2001:db8::7"]
        assert shown(gate, "--verdict", "drop") == {"10.7.0.3": 1}
        assert shown(gate, "10.7.0.0/16", "2001:db8::/32") == {
            "10.7.0.1": 2,
            "10.7.0.3": 1,
            "2001:db8::7": 1,
        }
        assert len(shown(gate, "--port", "left")) == 4
        assert shown(gate, "192.0.2.1") == {}
        printed = xdpgw(bed, "sources", "10.7.0.0/16").stdout.splitlines()
        assert printed[0].split()[:4] == ["source", "packets", "bytes", "dropped"]
        assert printed[1].split()[:4] == ["10.7.0.1", "2", "124", "0"]
        assert printed[-1].startswith("2 of 2 sources that match, of 4 known; together 3 packets")


def test_reload_keeps_the_counts_and_detach_forgets_them(mode: str, bed: TestBed) -> None:
    with live(policy(mode), bed) as gate:
        gate.send(packets(3, "10.7.0.1"))
        applied = gate.apply(policy(mode).replace("10.7.0.3", "10.7.0.1"))
        assert "forgotten" not in applied_text(applied)
        gate.send(packets(2, "10.7.0.1"))
        (talker,) = read_talkers(gate.instance, gate.manifest)
        assert (talker.packets, talker.dropped, talker.port) == (5, 2, "left")
        assert (talker.verdict, talker.reason) == (Verdict.DROP, Reason.RULE)
    with live(policy(mode), bed) as gate:
        gate.send(packets(1, "10.7.0.1"))
        assert shown(gate) == {"10.7.0.1": 1}


@pytest.mark.parametrize(
    "settings", ["slots = 1024", "prefix4 = 24", "count = false", "slots = 16384\nprefix6 = 64"]
)
def test_reload_with_other_settings_forgets_and_says_so(
    mode: str, bed: TestBed, settings: str
) -> None:
    with live(policy(mode), bed) as gate:
        gate.send(packets(3, "10.7.0.1"))
        assert "sources sent so far was forgotten" in applied_text(
            gate.apply(policy(mode, settings))
        )
        gate.send(packets(2, "10.7.0.1"))
        if "false" in settings:
            done = xdpgw(bed, "sources")
            assert done.returncode == 1
            assert "the policy in force does not count sources" in done.stderr
            assert "count = true in [sources]" in done.stderr
        else:
            assert [*shown(gate).values()] == [2]
        # And the same once more keeps what there is.
        gate.apply(policy(mode, settings))
        gate.apply(policy(mode, settings))
        assert not {x.name for x in gate.instance.path.iterdir() if x.name.endswith("-next")}
        gate.send(packets(1, "10.7.0.1"))
        if "false" not in settings:
            assert [*shown(gate).values()] == [3]


def test_reload_that_fails_goes_on_counting(
    mode: str, bed: TestBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(policy(mode), bed) as gate:
        gate.send(packets(3, "10.7.0.1"))
        with monkeypatch.context() as patched, pytest.raises(KernelError, match="no switch"):

            def refuse(*_: object) -> None:
                raise KernelError("no switch")

            patched.setattr(Link, "update", refuse)
            with bed.gateway.entered():
                gateway.apply(config.loads(policy(mode, "slots = 1024")), gate.instance)
        assert not {x.name for x in gate.instance.path.iterdir() if x.name.endswith("-next")}
        gate.send(packets(2, "10.7.0.1"))
        assert shown(gate) == {"10.7.0.1": 5}


def test_table_of_a_start_that_died_is_not_taken_over(mode: str, bed: TestBed) -> None:
    """Its size is not what the manifest says."""
    with live(policy(mode, "slots = 1024"), bed) as gate:
        gate.apply(policy(mode, "slots = 2048"))
        pin = gate.instance.path / "talkers"
        pin.unlink()
        gate.maps["talkers"].pin(pin)  # that of 1,024
        gate.apply(policy(mode, "slots = 2048"))
        gate.send(packets(4, "10.7.0.1"))
        assert shown(gate) == {"10.7.0.1": 4}


def test_flood_of_spoofed_sources_is_bounded_and_adds_up(mode: str, bed: TestBed) -> None:
    with live(policy(mode, "slots = 128"), bed) as gate:
        crowd = [packets(1, f"10.9.{n >> 8}.{n & 255}")[0] for n in range(2000)]
        for at in range(0, len(crowd), 100):
            gate.send([*packets(10, "10.7.0.1"), *crowd[at : at + 100]])
        told = data(bed, "sources", "--top", 1)
        assert (told["sources"][0]["source"], told["sources"][0]["packets"]) == ("10.7.0.1", 200)
        assert told["known"]["packets"] + told["gone"]["packets"] == 2200
        assert told["known"]["sources"] <= told["slots"]
        assert told["gone"]["sources"] >= 2001 - told["slots"]
        assert "forgotten: " in xdpgw(bed, "sources").stdout


def test_watch_shows_rates_until_ctrl_c(mode: str, bed: TestBed, tmp_path: Path) -> None:
    with live(policy(mode), bed) as gate:
        gate.send(packets(3, "10.7.0.1"))
        watching = Running(bed, tmp_path, "sources", "--watch", "--json")
        try:
            first = json.loads(watching.printed(1)[0])
            assert [row["pps"] for row in first["sources"]] == [None]
            gate.send(packets(50, "10.7.0.1"))
            until(
                lambda: any(
                    row["pps"]
                    for line in watching.out.read_text().rpartition("\n")[0].splitlines()
                    for row in json.loads(line)["sources"]
                ),
                "a rate above 0",
            )
        finally:
            assert watching.end(SIGINT) == 130
        assert watching.err.read_text().strip() == ""


def test_countries_and_ases_are_shown_where_there_are_databases(
    mode: str, bed: TestBed, tmp_path: Path
) -> None:
    country = database(tmp_path / "country.mmdb", "Country", {"10.7.0.0/24": WHERE})
    asn = database(tmp_path / "asn.mmdb", "ASN", {"10.7.0.0/24": NUMBER})
    with live(policy(mode, f'geoip = ["{country}"]'), bed) as gate:
        gate.send([*packets(2, "10.7.0.1"), *packets(1, "10.9.0.1")])
        near, far = data(bed, "sources")["sources"]
        assert (near["country"], near["asn"], far["country"]) == ("DE", None, None)
        printed = xdpgw(bed, "sources", "--geoip", country, "--geoip", asn).stdout
        assert "AS64500 Example [x]" in printed
        country.unlink()
        done = xdpgw(bed, "sources")
        assert done.returncode == 0
        assert "10.7.0.1" in done.stdout
        assert "countries and ASes are not shown" in done.stderr
        done = xdpgw(bed, "sources", "--geoip", country)
        assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("10.0.0.1/8",), 2, "has bits set behind its prefix"),
        (("10.0.0.300",), 2, "is not an address"),
        (("--top", "0"), 2, "0 is not in the range"),
        (("--by", "colour"), 2, "is not one of"),
        (("--port", "eth9"), 1, "the policy in force has no port eth9"),
    ],
)
def test_sources_of_nonsense_is_a_sentence(
    bed: TestBed, words: tuple[str, ...], status: int, why: str
) -> None:
    with live(policy("native"), bed):
        done = xdpgw(bed, "sources", *words)
        assert (done.returncode, done.stdout) == (status, "")
        assert why in done.stderr


def test_sources_without_a_filter_says_so(bed: TestBed) -> None:
    done = xdpgw(bed, "sources")
    assert done.returncode == 1
    assert "no filter is in force" in done.stderr
