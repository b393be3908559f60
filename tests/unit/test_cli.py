"""The command line, as far as it goes without a kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xdpgw.cli import cli, main

GOOD = """
[policy]
rules = \"\"\"
web  drop  tcp to port {80 443}
\"\"\"
[ports.eth0]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD)
    return path


def xdpgw(*args: object) -> int:
    """Run the command in this process; its exit status."""
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
        sys.exit(0)
    code = caught.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def test_check_good_policy_says_what_it_holds(policy: Path, capsys: pytest.CaptureFixture) -> None:
    assert xdpgw("check", policy) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{policy}: the policy is well-formed: 1 rule, 0 sets, 1 port, ")
    assert err == ""


def test_check_json_is_one_document(policy: Path, capfdbinary: pytest.CaptureFixture) -> None:
    assert xdpgw("check", policy, "--json") == 0
    shown = json.loads(capfdbinary.readouterr().out)
    assert (shown["rules"], shown["ports"], shown["not_in_this_version"]) == (1, ["eth0"], [])
    assert 0 < shown["memory_bytes"] < 65536


def test_check_bad_policy_tells_all_errors_and_exits_2(
    policy: Path, capsys: pytest.CaptureFixture
) -> None:
    policy.write_text(GOOD.replace("tcp to", "tpc to").replace("[ports", "x = 1\n[ports"))
    assert xdpgw("check", policy) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f'{policy}:4:12: unknown word "tpc" (did you mean "tcp"?)',
        f'{policy}:6:1: unknown key "x" in [policy] (write default, malformed, fragments, '
        "guard, allow or rules)",
    ]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("drop", "reject", "action reject"),
        ("drop", "forward", "action forward"),
        ("drop", "redirect eth0", "action redirect"),
        ("tcp to", "established tcp to", "established"),
        ("[ports.eth0]", "[ports.eth0]\n[gateway]\ncoexist = true", "coexist = true"),
    ],
)
def test_check_tells_what_this_version_does_not_do(
    policy: Path, capsys: pytest.CaptureFixture, old: str, new: str, what: str
) -> None:
    policy.write_text(GOOD.replace(old, new))
    assert xdpgw("check", policy) == 0
    err = capsys.readouterr().err
    assert f"{what} is not in this version" in err
    assert "run and reload refuse it" in err


@pytest.mark.parametrize("command", ["check", "run", "rules"])
def test_missing_policy_is_a_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert xdpgw(command, tmp_path / "none.toml") == 2
    err = capsys.readouterr().err
    assert "No such file or directory" in err
    assert "Traceback" not in err


def test_rules_of_a_file_are_canonical_and_read_back(
    policy: Path, capsys: pytest.CaptureFixture
) -> None:
    assert xdpgw("rules", policy) == 0
    printed = capsys.readouterr().out
    assert printed == "web  drop  tcp to port {80, 443}\n"
    policy.write_text(GOOD.replace("web  drop  tcp to port {80 443}\n", printed))
    assert xdpgw("rules", policy) == 0
    assert capsys.readouterr().out == printed


def test_unknown_namespace_is_a_sentence(capsys: pytest.CaptureFixture) -> None:
    assert xdpgw("--netns", "no-such-lab", "status") == 1
    assert "no network namespace no-such-lab" in capsys.readouterr().err


def test_unknown_command_exits_2(capsys: pytest.CaptureFixture) -> None:
    assert xdpgw("chekc") == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_command(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert xdpgw("completion", shell) == 0
    assert "_XDPGW_COMPLETE" in capsys.readouterr().out


def test_every_command_has_help_and_the_ones_that_act_an_example(
    capsys: pytest.CaptureFixture,
) -> None:
    for name in cli.commands:
        assert xdpgw(name, "--help") == 0
        out = capsys.readouterr().out
        assert "Example" in out or name == "testbed"


def test_help_imports_nothing_heavy() -> None:
    heavy = (
        "numpy",
        "scapy",
        "pyroute2",
        "lark",
        "rich",
        "textual",
        "prometheus_client",
        "xdpgw._native",
    )
    code = f"""
import sys
from xdpgw.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_output_into_a_closed_pipe_is_quiet(policy: Path) -> None:
    policy.write_text(
        GOOD.replace("web ", "".join(f"r{n} pass udp to port {n}\n" for n in range(900)) + "web ")
    )
    command = f"set -o pipefail; {sys.executable} -m xdpgw rules {policy} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run_in_shell(line: str, policy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "xdpgw", "rules", str(policy), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_output_on_a_full_disk_is_a_sentence(policy: Path) -> None:
    done = run_in_shell('"$@" >/dev/full', policy)
    assert (done.returncode, done.stderr) == (
        1,
        "xdpgw: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(policy: Path, closed: str) -> None:
    done = run_in_shell(f'"$@" {closed}', policy)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (" >&-" not in f" {closed}")
