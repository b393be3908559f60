"""Named sets: addresses, prefixes and ranges, and the files of them."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpgw import config
from xdpgw.errors import ConfigError
from xdpgw.literals import Wrong, addresses
from xdpgw.netset import scan
from xdpgw.prefixes import EMPTY, Prefixes
from xdpgw.rule_types import Prefix
from xdpgw.sets import MAX_BAD_LINES, Feed, NamedSet, read_feed, read_line


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
    read, wrong = read_feed(path)
    assert wrong == []
    assert read.prefixes == Prefixes.of(
        [
            (4, 0x0A000001, 32),
            (4, 0x0A010000, 16),
            (6, 0x20010DB8 << 96, 32),
            (4, 0x0A020000, 30),
            (4, 0x0A030000, 31),
            (4, 0, 0),
        ]
    )


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
    read, wrong = read_feed(path)
    assert (read.prefixes, len(wrong)) == (EMPTY, MAX_BAD_LINES + 1)
    assert str(wrong[-1]) == f"{path}: 7 more lines are wrong"


def test_set_with_an_empty_file_is_one_of_addresses(tmp_path: Path) -> None:
    path = feed(tmp_path, b"# nothing today\n")
    text = '[sets]\nb = [{ file = "feed.netset" }]\n'
    found = config.loads(text, base=tmp_path).sets["b"]
    assert found == NamedSet("b", "addresses", feeds=(Feed(path),))
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
    assert found.sets["b"].prefixes == Prefixes.of([(6, 1, 128)])


def test_file_of_200000_lines_is_read_whole(tmp_path: Path) -> None:
    lines = (f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(200_000))
    path = feed(tmp_path, "\n".join(lines).encode())
    read, wrong = read_feed(path)
    assert (len(read.prefixes), wrong) == (200_000, [])


# What lines are made of: right, wrong and odd, in any order.
PIECES = st.sampled_from(
    [
        *("10.0.0.1", "10.0.0.9", "0.0.0.0", "255.255.255.255", "010.0.0.1", "1.2.3", "256.1.1.1"),
        *("::", "::1", "2001:db8::", "2001:DB8::ffff", "::ffff:1.2.3.4", "1::2::3", "fe80::1%eth0"),
        *("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8:1234:5678:9abc:def0:1.2.3.4"),
        *(
            "/",
            "/0",
            "/8",
            "/32",
            "/33",
            "/48",
            "/64",
            "/128",
            "/129",
            "/08",
            "/-1",
            "/+8",
            "/1000",
        ),
        *("-", " - ", "#", "# why", " ", "\t", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0"),
        *("\0", "\ufeff", "\u2003", "caf\xe9", "22", "x"),
    ]
)
LINES = st.lists(
    st.lists(PIECES, max_size=6).map("".join)
    | st.text(max_size=12).filter(lambda x: "\n" not in x),
    max_size=8,
)


def by_line(line: str) -> list[Prefix] | None:
    try:
        return read_line(line)
    except Wrong:
        return None


@settings(max_examples=500)
@given(LINES)
def test_reader_in_c_takes_what_the_one_in_python_takes(lines: list[str]) -> None:
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    lines = text.decode("utf-8", "replace").split("\n")
    prefixes, odd = scan(text)
    told = {number - 1: begin for number, begin in odd}
    taken = [by_line(line) for at, line in enumerate(lines) if at not in told]
    assert None not in taken  # else C takes what is wrong
    assert prefixes == Prefixes.of(x for some in taken for x in some or ())
    starts = list(accumulate((len(x) + 1 for x in text.split(b"\n")), initial=0))
    assert told == {at: starts[at] for at in told}


@pytest.mark.parametrize(
    "line",
    [
        "10.0.0.0/8",
        "::/0",
        "10.0.0.1-10.0.0.9",
        "::1 - ::ffff",
        " ::ffff:1.2.3.4 # x",
        "#\xff",
        "\r",
    ],
)
def test_common_line_is_left_to_the_reader_in_c(line: str) -> None:
    prefixes, odd = scan(line.encode("latin-1"))
    assert (list(prefixes), odd) == (sorted(read_line(line)), [])


def test_file_longer_than_the_columns_is_read_whole() -> None:
    lines = [f"10.0.{n}.1-10.0.{n}.254" for n in range(256)] + ["odd"] * 300 + ["::1-::fffe"] * 50
    text = "\n".join(lines).encode()
    prefixes, odd = scan(text, room=254)
    assert prefixes == Prefixes.of(x for line in lines if line != "odd" for x in read_line(line))
    assert odd == [(257 + n, text.index(b"odd") + 4 * n) for n in range(300)]
    with pytest.raises(ValueError, match="room=253"):
        scan(text, room=253)


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
