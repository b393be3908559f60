"""Named sets: addresses, prefixes and ranges, and the files of them."""

import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpgw import config
from xdpgw.errors import ConfigError
from xdpgw.literals import addresses
from xdpgw.sets import MAX_BAD_LINES, NamedSet, read_netset


def feed(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "feed.netset"
    path.write_bytes(content)
    return path


def test_netset_file_with_all_that_is_common(tmp_path: Path) -> None:
    path = feed(
        tmp_path,
        b"\xef\xbb\xbf# caf\xe9\r\n\r\n10.0.0.1\r\n  10.1.0.0/16 # why\n2001:db8::/32\n"
        b"10.2.0.0-10.2.0.3\n10.3.0.0 - 10.3.0.1\n0.0.0.0/0",
    )
    prefixes, wrong = read_netset(path)
    assert wrong == []
    assert prefixes == [
        (4, 0x0A000001, 32),
        (4, 0x0A010000, 16),
        (6, 0x20010DB8 << 96, 32),
        (4, 0x0A020000, 30),
        (4, 0x0A030000, 31),
        (4, 0, 0),
    ]


def test_netset_file_with_bad_lines_tells_each(tmp_path: Path) -> None:
    path = feed(tmp_path, b"10.0.0.1\n10.0.0.1/8\n  nonsense\n22\n::5-::1\n1.2.3.4 5.6.7.8\n")
    with pytest.raises(ConfigError) as caught:
        config.loads('[sets]\nb = [5, { file = "feed.netset" }, 6]\n', file="p", base=tmp_path)
    hint = "write an address, a prefix such as 10.0.0.0/8, or FIRST-LAST"
    assert str(caught.value).split("\n") == [
        'p:2:9: set "b" holds ports, and this is one of addresses (make two sets of it)',
        f"{path}:2:1: 10.0.0.1/8 has bits set behind its prefix (write 10.0.0.0/8)",
        f'{path}:3:3: "nonsense" is not an address ({hint})',
        f'{path}:4:1: "22" is not an address ({hint})',
        f"{path}:5:1: address range ::5-::1 runs backwards (write ::1-::5)",
        f'{path}:6:1: "1.2.3.4 5.6.7.8" is not an address ({hint})',
    ]


def test_netset_file_of_something_else_tells_the_first_lines(tmp_path: Path) -> None:
    path = feed(tmp_path, b"\xff\xfe\n" * (MAX_BAD_LINES + 7))
    prefixes, wrong = read_netset(path)
    assert (prefixes, len(wrong)) == ([], MAX_BAD_LINES + 1)
    assert str(wrong[-1]) == f"{path}: 7 more lines are wrong"


def test_set_with_an_empty_file_is_one_of_addresses(tmp_path: Path) -> None:
    path = feed(tmp_path, b"# nothing today\n")
    text = '[sets]\nb = [{ file = "feed.netset" }]\n'
    found = config.loads(text, base=tmp_path).sets["b"]
    assert found == NamedSet("b", "addresses", files=(path,))
    with pytest.raises(ConfigError) as caught:
        config.loads(f'policy.rules = "a drop from not @b"\n{text}', base=tmp_path)
    assert str(caught.value) == (
        '<policy>:1:33: set "b" is empty, and "not" of it matches everything (leave it out)'
    )


def test_set_that_nobody_uses_is_silent() -> None:
    assert config.loads('[sets]\nb = ["::1"]\n').warnings == ()


def test_set_file_by_an_absolute_path(tmp_path: Path) -> None:
    path = feed(tmp_path, b"::1\n")
    found = config.loads(f'[sets]\nb = [{{ file = "{path}" }}]\n', base=Path("/nowhere"))
    assert found.sets["b"].prefixes == {(6, 1, 128)}


def test_file_of_200000_lines_reads_in_about_a_second(tmp_path: Path) -> None:
    lines = (f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(200_000))
    path = feed(tmp_path, "\n".join(lines).encode())
    start = time.perf_counter()
    prefixes, _ = read_netset(path)
    assert len(set(prefixes)) == 200_000
    assert time.perf_counter() - start < 5  # 0.3 s where it was written


@given(st.ip_addresses(), st.data())
def test_prefix_is_what_ipaddress_makes_of_it(address: IPv4Address, data: st.DataObject) -> None:
    bits = data.draw(st.integers(0, address.max_prefixlen))
    network = ip_network((address, bits), strict=False)
    assert addresses(str(network)) == [(address.version, int(network.network_address), bits)]


@pytest.mark.parametrize("cls", [IPv4Address, IPv6Address])
@given(data=st.data())
def test_range_is_what_ipaddress_makes_of_it(cls: type, data: st.DataObject) -> None:
    some = st.integers(0, 2 ** (32 if cls is IPv4Address else 128) - 1)
    first, last = sorted((cls(data.draw(some)), cls(data.draw(some))))
    assert addresses(f"{first}-{last}") == [
        (x.version, int(x.network_address), x.prefixlen)
        for x in summarize_address_range(first, last)
    ]


@pytest.mark.parametrize("word", ["1.2.3", "1.2.3.4.5", "1.2.3.256", "::g", ":::", "1.2.3.4%eth0"])
def test_address_that_ipaddress_refuses_is_wrong(word: str) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        ip_address(word)
    with pytest.raises(ValueError, match="is not an address"):
        addresses(word)
