"""What every source file keeps to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def sources(*patterns: str) -> list[Path]:
    """The project's files of these names; git is not needed to run the tests."""
    found = sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file())
    return [path for path in found if not path.name.startswith("_abi")]


@pytest.mark.parametrize("path", sources("bpf/*.h", "bpf/*.c"), ids=lambda p: p.name)
def test_bpf_sources_are_gpl(path: Path) -> None:
    assert "SPDX-License-Identifier: GPL-2.0-only" in path.read_text().splitlines()[0]


@pytest.mark.parametrize(
    "path", sources("fastpath/*.h", "fastpath/*.c", "fastpath/*/*.c"), ids=lambda p: p.name
)
def test_fastpath_sources_name_their_licence(path: Path) -> None:
    assert "SPDX-License-Identifier: " in path.read_text().splitlines()[0]


def test_licences_are_stated_where_people_look() -> None:
    readme, project = (ROOT / "README.md").read_text(), (ROOT / "pyproject.toml").read_text()
    assert "MIT" in readme
    assert "GPL-2.0-only" in readme
    assert 'license = "MIT AND GPL-2.0-only"' in project
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert "Version 2, June 1991" in (ROOT / "LICENSES/GPL-2.0-only.txt").read_text()


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = sources(
        "bpf/*", "fastpath/**/*.[ch]", "xdpgw/**/*.py", "tests/**/*.py", "bench/**/*.py"
    )
    assert not [path for path in found if mark.search(path.read_text(errors="replace"))]


def test_ci_runs_all_tests_and_nothing_less() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[0].startswith("#!") and lines[0].endswith("bash")
    assert "set -euo pipefail" in lines
    assert lines[-1] == "exec make test </dev/null"
    shown = subprocess.run(
        ["make", "-n", "--no-print-directory", "test"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    recipe = " ".join(line for line in shown if " -m pytest " in line)
    folders = {path.parent for path in sources("tests/*/test_*.py")}
    assert folders
    assert not [x for x in folders if str(x.relative_to(ROOT)) not in recipe.split()]


def test_help_lists_what_people_call() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    wanted = ("build", "artifacts", "demo", "test", "check", "bench", "clean")
    assert not [name for name in wanted if f"make {name} " not in shown]


def test_no_printk_in_the_datapath() -> None:
    assert not [p for p in sources("bpf/*.h", "bpf/*.c") if "bpf_printk" in p.read_text()]


def test_no_default_in_a_switch_over_our_enums() -> None:
    """-Wswitch tells a forgotten case only where there is no default."""
    text = (ROOT / "bpf/verdict.h").read_text()
    assert "switch" in text
    assert "default:" not in text


def test_fastpath_prints_nothing_and_ends_no_process() -> None:
    calls = re.compile(r"\b(printf|fprintf|puts|perror|exit|abort|assert)\s*\(")
    for path in sources("fastpath/*.c", "fastpath/*/*.c"):
        if path.name == "debug.c":  # in debug builds, on purpose
            continue
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
        assert not calls.search(code), path


def test_tests_wait_for_conditions_and_do_not_sleep() -> None:
    mark = "time." + "sleep("
    assert not [p for p in sources("tests/**/*.py") if mark in p.read_text()]


def test_docs_link_to_files_that_are_there() -> None:
    for page in sources("*.md", "docs/*.md", "docs/adr/*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_readme_names_every_command() -> None:
    from xdpgw.cli import cli

    text = (ROOT / "README.md").read_text()
    assert not [name for name in cli.commands if f"xdpgw {name}" not in text]
