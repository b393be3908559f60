"""Country and AS of sources, from databases that are made here."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from xdpgw.errors import XdpgwError
from xdpgw.geo import Geo, Place

WHERE = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}}
NUMBER = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example [x]"}


def database(path: Path, kind: str, records: dict[str, dict[str, Any]], family: int = 6) -> Path:
    writer = MMDBWriter(family, kind, ipv4_compatible=family == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    countries = {"192.0.2.0/24": WHERE, "2001:db8::/32": {"registered_country": {"iso_code": "FR"}}}
    return [
        database(tmp_path / "country.mmdb", "GeoLite2-Country", countries),
        database(tmp_path / "asn.mmdb", "GeoLite2-ASN", {"192.0.2.0/25": NUMBER}, family=4),
    ]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("192.0.2.1", Place("DE", 64500, "Example [x]")),
        ("192.0.2.129", Place("DE")),
        ("198.51.100.1", Place()),
        ("2001:db8::1", Place("FR")),
        ("192.0.2.0/26", Place("DE", 64500, "Example [x]")),
    ],
)
def test_place_is_what_all_databases_know(files: list[Path], source: str, place: Place) -> None:
    asked = ipaddress.ip_network(source) if "/" in source else ipaddress.ip_address(source)
    with Geo(files) as geo:
        assert geo.place(asked) == place


def test_names_of_a_database_cannot_command_a_terminal(tmp_path: Path) -> None:
    record = {**NUMBER, "autonomous_system_organization": "\x1b[31mred\n"}
    file = database(tmp_path / "x.mmdb", "ASN", {"192.0.2.0/24": record})
    with Geo([file]) as geo:
        assert geo.place(ipaddress.ip_address("192.0.2.1")).as_name == "?[31mred?"


@pytest.mark.parametrize(
    "record", [{"country": "DE", "autonomous_system_number": "x"}, {"country": {}}, {"country": 7}]
)
def test_records_of_another_shape_are_no_error(tmp_path: Path, record: dict[str, Any]) -> None:
    file = database(tmp_path / "x.mmdb", "odd", {"192.0.2.0/24": record})
    with Geo([file]) as geo:
        assert geo.place(ipaddress.ip_address("192.0.2.1")).asn is None


def test_missing_file_says_so_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(XdpgwError, match=r"cannot read .*none\.mmdb: No such file") as caught:
        Geo([tmp_path / "none.mmdb"])
    assert "geoip" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"", b"no database", bytes(100_000)])
def test_what_is_no_database_says_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.mmdb"
    file.write_bytes(content)
    with pytest.raises(XdpgwError, match="is not a database in MaxMind's format"):
        Geo([file])


def test_damaged_database_is_an_error_of_one_line(files: list[Path]) -> None:
    raw = bytearray(files[0].read_bytes())
    end = raw.rindex(b"\xab\xcd\xefMaxMind.com")
    raw[: end - 16] = b"\xff" * (end - 16)
    files[0].write_bytes(raw)
    with Geo(files) as geo, pytest.raises(XdpgwError, match="is damaged"):
        geo.place(ipaddress.ip_address("192.0.2.1"))


def test_missing_package_names_the_extra(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    with pytest.raises(XdpgwError, match="not installed") as caught:
        Geo(files)
    assert "xdpgw[geo]" in str(caught.value.hint)
    with Geo([]) as geo:
        assert geo.place(ipaddress.ip_address("192.0.2.1")) == Place()
