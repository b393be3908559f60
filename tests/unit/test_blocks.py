"""Blocks, as far as they go without a kernel: the command line, `allow`, where they are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.test_cli import xdpgw
from xdpgw import _abi as abi
from xdpgw import block_request, config, rules, state
from xdpgw.block_request import named
from xdpgw.block_table import keys_of, lines_of
from xdpgw.blocks import allowed_part
from xdpgw.cli_json import duration_text
from xdpgw.compile import Session, compile_rules
from xdpgw.errors import ConfigError, XdpgwError
from xdpgw.literals import addresses, prefix_text
from xdpgw.rule_types import Prefix


def prefixes(*words: str) -> list[Prefix]:
    return [prefix for word in words for prefix in addresses(word)]


# The command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name an address or a prefix"),
        (["192.0.2.7/24"], "192.0.2.7/24 has bits set behind its prefix (write 192.0.2.0/24)"),
        (["2001:db8::1/32"], "has bits set behind its prefix (write 2001:db8::/32)"),
        (["example.org"], '"example.org" is not an address'),
        (["192.0.2.7", "--for", "7"], 'time "7" is not a time'),
        (["192.0.2.7", "--for", "0s"], "time 0s is out of range (write 1s to 3650d)"),
        (["192.0.2.7", "--reason", "two\nlines"], "write one line of printable text"),
        (["192.0.2.7", "--reason", "\x1b[31m"], "write one line of printable text"),
    ],
)
def test_block_bad_words_are_usage_errors(
    words: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert xdpgw("block", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--all", "192.0.2.7"], ["--all", "--file", "x"], []])
def test_unblock_takes_all_or_sources(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert xdpgw("unblock", *words) == 2
    assert "Usage" in capsys.readouterr().err


def test_block_tells_all_bad_lines_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "feed"
    file.write_text("# a feed\n192.0.2.0/24\nnonsense\n  192.0.2.1/24 # here\n")
    assert xdpgw("block", "--file", file) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [f"{file}:3:1:", f"{file}:4:3:"]


def test_block_file_that_is_not_there_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert xdpgw("block", "--file", tmp_path / "none") == 1
    assert "none: No such file or directory" in capsys.readouterr().err


def refusal(*words: str) -> XdpgwError:
    """Why these are not blocked, of a filter that is not looked at."""
    with pytest.raises(XdpgwError) as refused:
        block_request.block(cast(Any, None), cast(Any, None), prefixes(*words), for_ns=None)
    return refused.value


@pytest.mark.parametrize("word", ["0.0.0.0/0", "::/0"])
def test_block_of_a_whole_family_wants_force(word: str) -> None:
    error = refusal(word)
    assert f"{word} blocks all of IPv" in str(error)
    assert "--force" in (error.hint or "")


@pytest.mark.parametrize(
    ("client", "word"),
    [("198.51.100.9", "198.51.100.9"), ("198.51.100.9", "198.0.0.0/8"), ("fe80::1", "fe80::/10")],
)
def test_block_of_ones_own_session_is_refused(
    client: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(client, 40000, client, 22)
    monkeypatch.setattr(block_request, "find_session", lambda: session)
    error = refusal("192.0.2.1", word)
    assert f"{word} covers {client}, from where your SSH session comes" in str(error)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1s"),
        (1, "1s"),
        (59_000_000_001, "1m0s"),
        (598_000_000_000, "9m58s"),
        (3_600_000_000_000, "1h0m"),
        (90_061_000_000_000, "1d1h"),
        (86_400_000_000_000, "1d0h"),
    ],
)
def test_time_left_is_told_in_two_units(ns: int, text: str) -> None:
    assert duration_text(ns) == text


def test_many_sources_are_told_by_number() -> None:
    some = prefixes("192.0.2.0-192.0.2.2", "2001:db8::/32")
    assert named(some) == "192.0.2.0/31, 192.0.2.2, 2001:db8::/32"
    many = prefixes(*(f"192.0.2.{n}" for n in range(9)))
    assert named(many).endswith("192.0.2.4 and 4 more")


# allow


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("192.0.2.0/24", True),
        ("192.0.2.99", True),
        ("192.0.0.0/16", False),
        ("0.0.0.0/0", False),
        ("192.0.1.0/24", None),
        ("192.0.3.0/24", None),
        ("10.0.0.0/7", True),  # both halves are allowed
        ("12.0.0.0/6", None),
        ("8.0.0.0/6", False),
        ("2001:db8::/32", False),
        ("2001:db8:1::1", True),
        ("2001:db8::1", None),
        ("::192.0.2.1", None),
    ],
)
def test_allowed_part_is_none_some_or_the_whole(word: str, wanted: bool | None) -> None:
    allow = prefixes("192.0.2.0/24", "10.0.0.0/8", "11.0.0.0/8", "2001:db8:1::/48", "192.0.2.7")
    (source,) = prefixes(word)
    found = list(allowed_part([source], allow))
    assert found == ([] if wanted is None else [(source, wanted)])


def test_allow_is_read_with_its_sets() -> None:
    policy = config.loads(
        '[policy]\nallow = ["192.0.2.1-192.0.2.2", "@office"]\n'
        '[sets]\noffice = ["::1", "10.0.0.0/8"]\n'
    )
    assert list(map(prefix_text, policy.policy.allow)) == [
        "10.0.0.0/8",
        "192.0.2.1",
        "192.0.2.2",
        "::1",
    ]
    image = compile_rules(rules.resolve(policy))
    assert image.allowed == b"".join(
        (bits + 8).to_bytes(4, "little") + bytes([family]) + address + bytes(19 - len(address))
        for bits, family, address in (
            (8, 4, bytes([10, 0, 0, 0])),
            (32, 4, bytes([192, 0, 2, 1])),
            (32, 4, bytes([192, 0, 2, 2])),
            (128, 6, bytes(15) + b"\1"),
        )
    )


def test_allow_of_too_many_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        '[policy]\nallow = ["@many"]\n[sets]\n'
        f"many = {[f'10.{n >> 8}.{n & 255}.1' for n in range(10_001)]}\n"
    )
    with pytest.raises(ConfigError, match="allow holds 10001 addresses and prefixes"):
        config.read(file)


# The filter before the table


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("step", [1, 256])
def test_filter_of_a_full_table_lets_few_others_through(family: int, step: int) -> None:
    base = 172 << 24 if family == 4 else 0x20010DB8 << 96
    width = 32 if family == 4 else 128
    full = keys_of([(family, base + n * step, width) for n in range(abi.BLOCK_SLOTS)])
    lines = lines_of(full)
    others = keys_of([(family, base - n * step, width) for n in range(1, 401)])
    passed = sum(not (lines_of(others[n : n + 1]) & ~lines).any() for n in range(400))
    assert passed < 40
    assert not (lines_of(full[::100]) & ~lines).any()


# Where it is kept


def test_state_is_in_the_folder_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(state.ENVIRONMENT, "/some/where")
    assert state.state_folder().parent == Path("/some/where")
    monkeypatch.delenv(state.ENVIRONMENT)
    assert state.state_folder().parent == Path("/var/lib/xdpgw")


def test_state_of_a_named_namespace_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").write_text("")
    os.symlink("/proc/thread-self/ns/net", tmp_path / "shop")
    monkeypatch.setattr(state, "NAMED", tmp_path)
    assert state.state_folder().name == "netns-shop"
    (tmp_path / "shop").unlink()
    assert not state.state_folder().name.startswith("netns-")


def test_state_of_the_first_process_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "NAMED", Path("/nowhere"))
    real = state._identity
    monkeypatch.setattr(state, "_identity", lambda path: (1, 2))
    assert state.state_folder().name == "host"
    monkeypatch.setattr(state, "_identity", lambda path: None if "1" in path.parts else real(path))
    monkeypatch.setattr(state, "_INITIAL_COOKIE", -1)
    assert state.state_folder().name.startswith("net-")
