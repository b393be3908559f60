"""What `xdpgw targets` prints for people: no number is cut, however narrow the terminal."""

from __future__ import annotations

import pytest

from xdpgw.render import print_targets

COUNTERS = {
    "rx_packets": 12_345_678_901,
    "rx_bytes": 1,
    "tx_packets": 12_345_678_902,
    "tx_bytes": 1,
    "dropped": 1_234_567_890,
    "tx_full": 3,
    "kicks": 1,
    "polls": 1,
}
STATISTICS = {
    "rx_dropped": 0,
    "rx_invalid_descs": 0,
    "tx_invalid_descs": 0,
    "rx_ring_full": 77,
    "rx_fill_ring_empty": 0,
    "tx_ring_empty": 99,
}


def socket(target: str | None, rates: dict[str, float] | None = None) -> dict[str, object]:
    return {
        "target": target,
        "handler": "reflect" if target else None,
        "port": "enp129s0f1np1",
        "queue": 127,
        "mode": "zero-copy",
        "multi_buffer": True,
        "alive": True,
        "counters": COUNTERS,
        "rates": rates,
        "statistics": STATISTICS,
        "rings": {
            name: {"level": 32_768, "size": 32_768} for name in ("fill", "rx", "tx", "completion")
        },
    }


def test_targets_are_printed_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rates = {"rx_packets": 14_880_952.4, "tx_packets": 14_880_951.6}
    print_targets(
        {"in_charge": True, "sockets": [socket("a" * 16, rates), socket(None)], "unserved": ["b"]}
    )
    out = capsys.readouterr().out
    assert "…" not in out
    for text in (
        "a" * 16,
        "enp129s0f1np1",
        "12345678901",
        "12345678902",
        "14880952",
        "32768/32768",
    ):
        assert text in out
    assert "77 lost as the RX ring was full" in out
    assert "3 not sent as the TX ring was full" in out
    assert "sends only" in out
    assert "b: no socket, its packets get the verdict after else\n" in out


def test_targets_of_a_policy_without_any_are_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_targets({"in_charge": True, "sockets": [], "unserved": []})
    assert capsys.readouterr().out == "the policy in force has no AF_XDP target\n"
