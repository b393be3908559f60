"""What `xdpgw capture` says at its end."""

from __future__ import annotations

import errno

import pytest

from xdpgw.capture import Captured
from xdpgw.pcapng import Written
from xdpgw.tap import TapBooks


@pytest.mark.parametrize(
    ("written", "missing", "failed"),
    [
        (Written(9, 900, 0, 0), 0, None),
        (Written(7, 700, 2, 0), 2, "some writes failed"),
        (Written(7, 700, 2, errno.ENOSPC), 2, "No space left on device"),
        (Written(7, 700, 2, errno.EPIPE), 2, None),
        (Written(7, 700, 0, 0), 2, "it was written too slowly"),
        (Written(7, 700, 1, 0), 2, "some writes failed"),
    ],
)
def test_captured_frames_are_in_the_file_or_told(
    written: Written, missing: int, failed: str | None
) -> None:
    done = Captured(TapBooks(seen=10, captured=9, lost=1, limited=0), written)
    assert done.failed == failed
    assert done.unwritten == missing
    said = f"{missing} of the captured could not be written"
    assert (said in str(done)) == bool(missing)
