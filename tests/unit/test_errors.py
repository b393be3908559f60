"""The exception tree."""

import pytest

from xdpgw import errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.XdpgwError("x"), 1),
        (errors.ConfigError([errors.Diagnostic("f", 1, 2, "m", None)]), 2),
        (errors.KernelError("x", "h", 22), 3),
        (errors.PrivilegeError("x"), 3),
        (errors.UnsupportedError("x", feature="f", kernel="5.10"), 3),
        (errors.VerifierError("x", log="l"), 3),
        (errors.BusyError("x", holder="y"), 3),
        (errors.FastpathError("x", "h", 1, port="eth0", queue=0), 4),
        (errors.AbiMismatch("struct xg_rule", 48, 40), 5),
    ],
)
def test_exit_status_of_each_error(error: errors.XdpgwError, status: int) -> None:
    assert error.exit_status == status


def test_config_error_has_the_place_of_the_first_and_a_line_for_each() -> None:
    error = errors.ConfigError(
        [errors.Diagnostic("f", 1, 2, "bad", "good"), errors.Diagnostic("f", 0, 0, "worse")]
    )
    assert (error.file, error.line, error.column) == ("f", 1, 2)
    assert str(error) == "f:1:2: bad (good)\nf: worse"
    assert error.hint is None


def test_verifier_error_keeps_the_log_and_shows_its_last_useful_lines() -> None:
    log = "".join(f"{n}: r0 = {n}\n" for n in range(50)) + (
        "R1 invalid mem access 'scalar'\n"
        "processed 51 insns (limit 1000000)\n"
        "-- END PROG LOAD LOG --\n"
    )
    error = errors.VerifierError("the kernel refused the program", log=log)
    assert error.log == log
    shown = str(error).split("\n")
    assert shown[0] == "the kernel refused the program"
    assert shown[-1] == "  R1 invalid mem access 'scalar'"
    assert len(shown) == 1 + error.shown_lines


def test_abi_mismatch_says_both_sides() -> None:
    error = errors.AbiMismatch("struct xg_rule", 48, 40)
    assert str(error) == "struct xg_rule: this xdpgw was built for 48, the other side has 40"
    assert error.hint == "build and install both halves from the same version"
