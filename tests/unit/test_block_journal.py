"""The file that keeps blocks: whatever a crash leaves of it, whole lines count and no other."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpgw import block_journal
from xdpgw.block_journal import Blocked, Journal, Unblocked
from xdpgw.errors import XdpgwError

NOW = time.time_ns()
LATER = NOW + 10**15
A = Blocked("192.0.2.1", LATER, NOW, "probes")
B = Blocked("2001:db8::/32", None, NOW, 'a "quote", a \\ and ü')


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "some" / "blocks")


def kept(journal: Journal) -> dict[str, Blocked]:
    blocked, unreadable = journal.read()
    assert unreadable == 0
    return blocked


def test_journal_without_a_file_is_empty(journal: Journal) -> None:
    assert journal.read() == ({}, 0)
    assert not journal.path.parent.exists()


def test_journal_gives_back_what_was_appended(journal: Journal) -> None:
    journal.append([A, B])
    assert kept(journal) == {A.source: A, B.source: B}
    again = Blocked(A.source, None, NOW + 1, "")
    journal.append([again])
    journal.append([Unblocked(B.source), Unblocked("192.0.2.9")])
    assert kept(journal) == {A.source: again}


def test_journal_leaves_out_what_is_over(journal: Journal) -> None:
    journal.append([A, Blocked("192.0.2.2", NOW - 1, NOW - 2, "")])
    assert kept(journal) == {A.source: A}
    # What is over does not bring back what it replaced.
    journal.append([Blocked(A.source, NOW - 1, NOW - 2, "")])
    assert kept(journal) == {}


def test_journal_is_for_its_owner_only(journal: Journal) -> None:
    journal.append([A])
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_journal_cut_anywhere_holds_its_whole_lines(journal: Journal) -> None:
    journal.append([A])
    journal.append([B])
    journal.append([Unblocked(A.source)])
    raw = journal.path.read_bytes()
    lines = raw.splitlines(keepends=True)
    assert len(lines) == 4
    after = [{}, {}, {A.source: A}, {A.source: A, B.source: B}, {B.source: B}]
    for size in range(len(raw) + 1):
        journal.path.write_bytes(raw[:size])
        assert kept(journal) == after[raw[:size].count(b"\n")]


@pytest.mark.parametrize(
    "torn", [b'["+","192.0.2', b'["-","192.0.2.1"]', b"\0" * 5000, b"\xff", b"\0" * 200_000]
)
def test_journal_append_cuts_a_torn_line_off(journal: Journal, torn: bytes) -> None:
    journal.append([A])
    with journal.path.open("ab") as file:
        file.write(torn)
    assert kept(journal) == {A.source: A}
    journal.append([B])
    assert kept(journal) == {A.source: A, B.source: B}


@pytest.mark.parametrize(
    "bad", [b"nonsense", b'["+","192.0.2.9"]', b'["?",1]', b"\xff\xfe", b'["+",1,2,3,4]']
)
def test_journal_counts_lines_that_it_cannot_read(journal: Journal, bad: bytes) -> None:
    journal.append([A])
    with journal.path.open("ab") as file:
        file.write(bad + b"\n")
    journal.append([B])
    assert journal.read() == ({A.source: A, B.source: B}, 1)


def test_journal_of_another_version_is_refused(journal: Journal) -> None:
    journal.append([A])
    journal.path.write_text(journal.path.read_text().replace('["#",1,', '["#",7,'))
    with pytest.raises(XdpgwError, match="another version") as caught:
        journal.read()
    assert "version 7" in (caught.value.hint or "")


def test_journal_that_grows_is_written_anew(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_journal, "SLACK_BYTES", 2000)
    journal.rewrite([B])
    sizes = []
    for n in range(200):
        journal.append([Blocked(A.source, LATER, NOW, f"time {n}")])
        sizes.append(journal.path.stat().st_size)
    assert max(sizes) < 2500
    assert any(after < before for before, after in pairwise(sizes))
    assert kept(journal) == {B.source: B, A.source: Blocked(A.source, LATER, NOW, "time 199")}


def test_journal_rewrite_that_died_leaves_the_old_one(journal: Journal) -> None:
    journal.append([A])
    journal.path.with_name("blocks.new").write_bytes(b'["#",1,')
    assert kept(journal) == {A.source: A}
    journal.rewrite([B])
    assert kept(journal) == {B.source: B}
    assert [x.name for x in journal.path.parent.iterdir()] == ["blocks"]


def test_journal_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "some").write_text("no folder")
    with pytest.raises(XdpgwError, match=r"cannot write .*/some/blocks: File exists") as caught:
        Journal(tmp_path / "some" / "blocks").append([A])
    assert "not kept" in (caught.value.hint or "")


def test_journal_append_that_fails_leaves_no_part(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([A])
    before = journal.path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(block_journal.os, "fsync", full)
        with pytest.raises(XdpgwError, match="No space left on device"):
            journal.append([B])
    assert journal.path.read_bytes() == before


_SOURCES = st.sampled_from(["192.0.2.1", "192.0.2.0/24", "::", "2001:db8::/32"])
_ENDS = st.none() | st.integers(LATER, LATER + 10**18)
_LINES = st.lists(
    st.builds(Blocked, _SOURCES, _ENDS, st.integers(0, NOW), st.text(max_size=20))
    | st.builds(Unblocked, _SOURCES),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_LINES, st.booleans()), max_size=6))
def test_journal_says_what_was_said_to_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[Blocked | Unblocked], bool]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "blocks")
    wanted: dict[str, Blocked] = {}
    for lines, anew in steps:
        journal.append(lines)
        for line in lines:
            if isinstance(line, Blocked):
                wanted[line.source] = line
            else:
                wanted.pop(line.source, None)
        if anew:
            journal.rewrite(wanted.values())
        assert kept(journal) == wanted
