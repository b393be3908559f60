"""Frames as C takes them to be sent: in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["in_one_piece"]


def in_one_piece(
    frames: Sequence[bytes] | NDArray[np.uint8],
) -> tuple[bytes | NDArray[np.uint8], NDArray[np.uintp], NDArray[np.uint32]]:
    """Join frames.

    Args:
        frames: as `FastPort.send` takes them.

    Returns:
        their bytes, where each begins, shape (n,), and how long each is, shape (n,), in bytes.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(frames, np.ndarray):
        if frames.dtype != np.uint8 or frames.ndim != 2:
            raise TypeError(
                f"an array of frames is of uint8 and has shape (n, length), not {frames.dtype} "
                f"and {frames.shape}"
            )
        n, length = frames.shape
        offsets = np.arange(n, dtype=np.uintp) * length
        return np.ascontiguousarray(frames), offsets, np.full(n, length, np.uint32)
    if isinstance(frames, (bytes, bytearray, memoryview)):
        raise TypeError("send() takes several frames: send([frame])")
    lengths = np.fromiter(map(len, frames), np.uint32, len(frames))
    offsets = np.zeros(len(lengths), np.uintp)
    np.cumsum(lengths[:-1], out=offsets[1:])
    return b"".join(frames), offsets, lengths
