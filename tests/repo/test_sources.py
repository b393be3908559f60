"""What every source file keeps to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, or all that are there where this is no checkout."""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = done.stdout.splitlines()
    found = [ROOT / name for name in names] or [p for x in patterns for p in ROOT.glob(x)]
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("path", tracked("bpf/*.h", "bpf/*.c"), ids=lambda p: p.name)
def test_bpf_sources_are_gpl(path: Path) -> None:
    assert "SPDX-License-Identifier: GPL-2.0-only" in path.read_text().splitlines()[0]


@pytest.mark.parametrize("path", tracked("fastpath/*.h", "fastpath/*.c"), ids=lambda p: p.name)
def test_fastpath_sources_name_their_licence(path: Path) -> None:
    assert "SPDX-License-Identifier: " in path.read_text().splitlines()[0]


def test_no_printk_in_the_datapath() -> None:
    assert not [p for p in tracked("bpf/*.h", "bpf/*.c") if "bpf_printk" in p.read_text()]


def test_no_default_in_a_switch_over_our_enums() -> None:
    """-Wswitch tells a forgotten case only where there is no default."""
    text = (ROOT / "bpf/verdict.h").read_text()
    assert "switch" in text
    assert "default:" not in text


def test_fastpath_prints_nothing_and_ends_no_process() -> None:
    calls = re.compile(r"\b(printf|fprintf|puts|perror|exit|abort|assert)\s*\(")
    for path in tracked("fastpath/*.c"):
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
        assert not calls.search(code), path


def test_tests_wait_for_conditions_and_do_not_sleep() -> None:
    mark = "time." + "sleep("
    assert not [p for p in tracked("tests/**/*.py") if mark in p.read_text()]


def test_docs_link_to_files_that_are_there() -> None:
    for page in tracked("*.md", "docs/*.md", "docs/adr/*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_readme_names_every_command() -> None:
    from xdpgw.cli import cli

    text = (ROOT / "README.md").read_text()
    assert not [name for name in cli.commands if f"xdpgw {name}" not in text]
