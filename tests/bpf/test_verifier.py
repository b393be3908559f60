"""What the verifier pays for each program stays what it was, and far from the kernel's limit.

A program that grows towards the limit loads until some compiler or kernel is a little worse at it.
verified.json holds what was measured; how to renew it stands in tests/bpf/verified.py.
"""

from __future__ import annotations

import pytest

from tests.bpf.verified import (
    GOLDEN,
    PROGRAMS,
    clang_major,
    kernel_series,
    makefile_variable,
    measure,
    nearest,
    read_golden,
)

MOST = 300_000  # three tenths of the kernel's limit (BPF_COMPLEXITY_LIMIT_INSNS)
TOLERANCE = 0.10
RENEW = "python -m tests.bpf.verified {clang}, and commit {file} with what made it necessary"


@pytest.mark.parametrize(("source", "variant"), PROGRAMS)
def test_verified_insns_stay(source: str, variant: str) -> None:
    clang = makefile_variable("CLANG")
    key = f"clang-{clang_major(clang)} linux-{kernel_series()}"
    golden = read_golden()
    column = nearest(key, list(golden))
    renew = RENEW.format(clang=clang, file=GOLDEN.name)
    if column != key:
        renew = f"there is no column {key}, {column} was taken; {renew}"
    wanted = golden[column].get(source, {}).get(variant)
    assert wanted is not None, f"no count for {source}, {variant} in {column}: {renew}"
    got = measure(source, variant, clang)
    assert got < MOST
    assert abs(got - wanted) <= TOLERANCE * wanted, f"{got:,} were {wanted:,}: {renew}"


def test_verified_counts_of_all_columns_are_below_the_bound() -> None:
    golden = read_golden()
    assert {int(key.split()[0].removeprefix("clang-")) for key in golden} >= {14, 16, 19}
    for key, column in golden.items():
        assert [(s, v) for s, counts in column.items() for v in counts] == PROGRAMS, key
        assert all(0 < n < MOST for counts in column.values() for n in counts.values()), key


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("clang-14 linux-6.18", "clang-14 linux-6.18"),
        ("clang-14 linux-6.1", "clang-14 linux-6.18"),
        ("clang-15 linux-6.1", "clang-14 linux-6.18"),
        ("clang-22 linux-7.3", "clang-19 linux-7.0"),
        ("clang-19 linux-6.12", "clang-19 linux-6.18"),
    ],
)
def test_nearest_column_is_by_clang_then_kernel(key: str, wanted: str) -> None:
    columns = ["clang-14 linux-6.18", "clang-19 linux-6.18", "clang-19 linux-7.0"]
    assert nearest(key, columns) == wanted
