"""xdpgw.fast without a port: bursts over memory of the test's own, and what refusals mean."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from xdpgw._native import ffi, lib
from xdpgw.errors import FastpathError, PrivilegeError
from xdpgw.fast import Burst, Umem, burst_of
from xdpgw.fast_burst import Source
from xdpgw.fast_errors import Wanted, check_power_of_two, refuse_socket
from xdpgw.fast_frames import in_one_piece

FRAMES = [bytes([i]) * (20 + i) for i in range(5)]
CHUNK = 2048


class Fake:
    """A received struct xg_burst, in memory of the test's own."""

    def __init__(self, frames: list[bytes] = FRAMES) -> None:
        out = ffi.new("struct xg_burst **")
        assert lib.xg_burst_create(8, out) == 0
        self.raw = ffi.gc(out[0], lib.xg_burst_free)
        self.area = ffi.new("uint8_t[]", CHUNK * len(frames))
        self.raw.area, self.raw.n = self.area, len(frames)
        setattr(self.raw, "from", ffi.cast("struct xg_xsk *", 1))
        for i, frame in enumerate(frames):
            self.raw.addr[i], self.raw.length[i] = CHUNK * i, len(frame)
            ffi.memmove(self.area + CHUNK * i, frame, len(frame))

    def in_parts(self, *parts: bytes) -> None:
        """Make it one frame over several chunks."""
        self.raw.n, self.raw.multi_buffer = 1, 1
        self.raw.first[0], self.raw.first[1] = 0, len(parts)
        self.raw.length[0] = sum(map(len, parts))
        for i, part in enumerate(parts):
            self.raw.parts[i].addr, self.raw.parts[i].length = CHUNK * i, len(part)
            ffi.memmove(self.area + CHUNK * i, part, len(part))

    def fates(self) -> list[int]:
        return list(self.raw.fate[0 : self.raw.n])


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def burst(fake: Fake) -> Burst:
    return burst_of(fake.raw)


def bools(*values: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array(values, bool)


# Reading


def test_burst_tells_addresses_and_lengths(burst: Burst) -> None:
    assert len(burst) == burst.n == 5
    assert burst.addr.dtype == np.uint64
    assert burst.addr.tolist() == [0, 2048, 4096, 6144, 8192]
    assert burst.length.dtype == np.uint32
    assert burst.length.tolist() == [20, 21, 22, 23, 24]


def test_header_gathers_the_first_bytes_of_each_frame(burst: Burst) -> None:
    header = burst.header(16)
    assert header.shape == (5, 16)
    assert header.dtype == np.uint8
    assert header.tolist() == [[i] * 16 for i in range(5)]


def test_header_has_zeros_behind_the_end_of_a_frame(burst: Burst) -> None:
    assert bytes(burst.header(24)[1]) == bytes([1] * 21 + [0] * 3)


def test_header_is_a_copy_that_outlives_the_burst(fake: Fake, burst: Burst) -> None:
    header = burst.header(4)
    burst.invalidate()
    ffi.memmove(fake.area, b"\xff" * 20, 20)
    assert header[0].tolist() == [0] * 4


def test_header_writes_where_it_is_told(burst: Burst) -> None:
    out = np.full((8, 4), 9, np.uint8)
    header = burst.header(4, out)
    assert header.base is out
    assert header.tolist() == [[i] * 4 for i in range(5)]
    assert out[5:].tolist() == [[9] * 4] * 3


@pytest.mark.parametrize(
    ("out", "kind", "said"),
    [
        (np.empty((5, 5), np.uint8), ValueError, r"shape \(5, 5\), and has to be \(5 or more, 4"),
        (np.empty((4, 4), np.uint8), ValueError, r"shape \(4, 4\)"),
        (np.empty(20, np.uint8), ValueError, r"shape \(20,\)"),
        (np.empty((5, 4), np.uint16), TypeError, "array of uint8"),
        (np.empty((4, 5), np.uint8).T, ValueError, "C order"),
        (bytearray(20), TypeError, "array of uint8"),
    ],
)
def test_header_refuses_what_it_cannot_write_into(
    burst: Burst, out: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        burst.header(4, out)


@pytest.mark.parametrize("nbytes", [0, -1, 65537])
def test_header_refuses_a_length_that_no_frame_has(burst: Burst, nbytes: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 65536 bytes of each frame, not {nbytes}"):
        burst.header(nbytes)


def test_frame_is_the_memory_itself(fake: Fake, burst: Burst) -> None:
    view = burst.frame(3)
    assert bytes(view) == FRAMES[3]
    view[0] = 0xEE
    assert fake.area[3 * CHUNK] == 0xEE


@pytest.mark.parametrize("i", [-1, 5, 100])
def test_frame_that_is_not_there_is_an_index_error(burst: Burst, i: int) -> None:
    with pytest.raises(IndexError, match=f"a burst of 5 frames has no frame {i}"):
        burst.frame(i)


def test_frame_over_several_chunks_is_a_read_only_copy_to_keep(fake: Fake) -> None:
    fake.in_parts(b"a" * 2000, b"b" * 1500, b"c")
    burst = burst_of(fake.raw)
    view = burst.frame(0)
    assert view.readonly
    burst.invalidate()
    assert bytes(view) == b"a" * 2000 + b"b" * 1500 + b"c"


def test_header_reaches_over_chunks(fake: Fake) -> None:
    fake.in_parts(b"ab", b"cd", b"e")
    assert bytes(burst_of(fake.raw).header(8)[0]) == b"abcde\0\0\0"


# Claiming


def test_a_frame_is_claimed_once(fake: Fake, burst: Burst) -> None:
    assert burst.drop(bools(1, 0, 1, 0, 0)) == 2
    assert burst.drop(bools(1, 1, 0, 0, 0)) == 1
    assert burst.drop() == 2
    assert burst.drop() == 0
    assert fake.fates() == [lib.XG_DROPPED] * 5


def test_mask_need_not_be_contiguous(fake: Fake, burst: Burst) -> None:
    mask = bools(1, 0, 0, 0, 1, 0, 0, 0, 1, 0)[::2]
    assert not mask.flags.c_contiguous
    assert burst.drop(mask) == 3
    assert [x == lib.XG_DROPPED for x in fake.fates()] == mask.tolist()


@pytest.mark.parametrize("name", ["drop", "send"])
@pytest.mark.parametrize(
    ("mask", "kind", "said"),
    [
        (bools(1, 0), ValueError, r"shape \(2,\), and the burst 5 frames: it has to be \(5,\)"),
        (bools(1, 0, 1, 0, 1, 0), ValueError, r"shape \(6,\)"),
        (np.zeros((5, 1), bool), ValueError, r"shape \(5, 1\)"),
        (np.zeros(5, np.uint8), TypeError, "not uint8"),
        ([True] * 5, TypeError, "not list"),
        (True, TypeError, "not bool"),
    ],
)
def test_wrong_mask_is_told_in_words(
    burst: Burst, name: str, mask: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        getattr(burst, name)(mask)


# The lease


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.n,
        len,
        lambda x: x.addr,
        lambda x: x.length,
        lambda x: x.header(4),
        lambda x: x.frame(0),
        lambda x: x.drop(),
        lambda x: x.send(),
        lambda x: x.forward(None, None),
    ],
)
def test_every_use_of_an_ended_burst_raises(burst: Burst, use: Any) -> None:
    burst.invalidate()
    assert burst.ended
    with pytest.raises(ValueError, match="the burst has ended"):
        use(burst)


def test_views_are_released_when_the_burst_ends(burst: Burst) -> None:
    view = burst.frame(0)
    burst.invalidate()
    with pytest.raises(ValueError, match="released memoryview"):
        view[0]


def test_a_released_view_does_not_hinder_the_end(burst: Burst) -> None:
    with burst.frame(0) as view:
        assert view[0] == 0
    burst.invalidate()
    burst.invalidate()


@pytest.mark.parametrize("kept", [lambda x: np.frombuffer(x, np.uint8), lambda x: x[4:]])
def test_what_still_looks_into_a_frame_is_an_error_that_names_it(burst: Burst, kept: Any) -> None:
    burst.frame(1)
    still = kept(burst.frame(3))
    with pytest.raises(BufferError, match=r"memory of frame 3: copy what you keep"):
        burst.invalidate()
    assert burst.ended
    assert len(still)


def test_all_frames_that_are_still_looked_into_are_named(burst: Burst) -> None:
    still = [burst.frame(0)[1:], np.frombuffer(burst.frame(4), np.uint8)]
    with pytest.raises(BufferError, match="frame 0, 4:"):
        burst.invalidate()
    assert still


def test_arrays_and_slices_that_are_gone_do_not_hinder_the_end(burst: Burst) -> None:
    array = np.frombuffer(burst.frame(3), np.uint8)
    part = burst.frame(2)[3:]
    kept = bytes(part), array.copy()
    del array, part
    burst.invalidate()
    assert kept[0] == FRAMES[2][3:]


def test_frame_that_was_sent_is_the_kernels(fake: Fake, burst: Burst) -> None:
    fake.raw.fate[2] = lib.XG_SENT
    with pytest.raises(ValueError, match="frame 2 was sent"):
        burst.frame(2)


def test_repr_of_an_ended_burst_says_so(burst: Burst) -> None:
    assert repr(burst) == "<Burst of 5 frames>"
    burst.invalidate()
    assert repr(burst) == "<Burst, ended>"


@pytest.fixture
def umem() -> Iterator[Umem]:
    with Umem(16) as umem:
        yield umem


def test_arrays_that_are_kept_stay_readable_memory(fake: Fake, umem: Umem) -> None:
    """Their content is nobody's business, but reading them must not end the process."""
    freed = weakref.ref(fake.raw)
    burst = Burst(Source(fake.raw, None, umem), 5)
    kept = burst.addr
    assert not kept.flags.writeable
    assert np.shares_memory(kept, burst.addr)
    burst.invalidate()
    del burst, fake.raw
    gc.collect()
    assert freed() is not None
    assert kept.tolist() == [0, 2048, 4096, 6144, 8192]
    del kept
    gc.collect()
    assert freed() is None


def test_memory_of_a_closed_umem_stays_while_an_array_looks_into_it(fake: Fake) -> None:
    umem = Umem(16)
    burst = Burst(Source(fake.raw, None, umem), 5)
    array = np.frombuffer(burst.frame(1), np.uint8)
    with pytest.raises(BufferError):
        burst.invalidate()
    freed = weakref.ref(umem.handle)
    umem.close()
    assert freed() is not None
    assert array.tolist() == [0] * 21  # of the UMEM, which nobody wrote to
    del array
    gc.collect()
    assert freed() is None


# UMEMs


def test_umem_tells_what_it_has(umem: Umem) -> None:
    ledger = umem.ledger()
    assert (ledger.chunks, ledger.free) == (16, 16)
    assert (ledger.receiving, ledger.held, ledger.sending) == (0, 0, 0)
    assert umem.frame_bytes == 1792
    assert repr(umem) == "<Umem 16 chunks of 2048 bytes>"


def test_umem_for_long_frames_takes_seventeen_chunks_a_frame() -> None:
    with Umem(4, 4096, multi_buffer=True) as umem:
        assert umem.frame_bytes == 17 * 3840


def test_closed_umem_says_so(umem: Umem) -> None:
    umem.close()
    umem.close()
    assert umem.closed
    with pytest.raises(ValueError, match="Umem is closed"):
        umem.ledger()


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ((16, 3000), "chunk_bytes is a power of two, not 3000", "2048 or 4096"),
        ((16, 1024), "chunk_bytes is a power of two from 2048 to 4096, not 1024", None),
        ((16, 8192), "chunk_bytes is a power of two from 2048 to 4096, not 8192", None),
        ((0,), "a UMEM has 1 to 4,194,304 chunks, not 0", None),
        ((-1,), "a UMEM has 1 to 4,194,304 chunks, not -1", None),
        ((1 << 23,), "a UMEM has 1 to 4,194,304 chunks, not 8388608", None),
    ],
)
def test_wrong_umem_is_a_sentence(arguments: tuple[int, ...], said: str, hint: str | None) -> None:
    with pytest.raises(FastpathError) as error:
        Umem(*arguments)
    assert (str(error.value), error.value.hint) == (said, hint)
    assert error.value.exit_status == 4


def test_second_thread_on_a_umem_is_refused(umem: Umem) -> None:
    raised = []

    def other() -> None:
        try:
            with umem.alone():
                pass
        except RuntimeError as error:
            raised.append(str(error))

    with umem.alone():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with umem.alone():  # the same thread, as in a signal's handler
            pass
    assert len(raised) == 1 and "two threads use ports of one UMEM" in raised[0]


def test_unclosed_umem_is_a_warning() -> None:
    with pytest.warns(ResourceWarning, match="unclosed <Umem"):
        Umem(16)


# Frames to send


def test_frames_to_send_come_as_bytes_or_as_an_array() -> None:
    data, offsets, lengths = in_one_piece([b"ab", b"", b"cde"])
    assert (data, offsets.tolist(), lengths.tolist()) == (b"abcde", [0, 2, 2], [2, 0, 3])
    block = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data, offsets, lengths = in_one_piece(block[:, ::2])
    assert bytes(data) == bytes([0, 2, 4, 6, 8, 10])
    assert (offsets.tolist(), lengths.tolist()) == ([0, 2, 4], [2, 2, 2])


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (b"one frame", r"send\(\[frame\]\)"),
        (np.zeros(60, np.uint8), r"shape \(n, length\), not uint8 and \(60,\)"),
        (np.zeros((1, 60)), "not float64"),
    ],
)
def test_what_is_no_list_of_frames_is_told_in_words(frames: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        in_one_piece(frames)


# Refusals

WANTED = Wanted(2048, 2048, 17 << 20, "auto", False, 100, 8448)
ZERO_COPY = Wanted(2048, 4096, 17 << 20, "zerocopy", True)
BIND = "bind(XDP_COPY)"


@pytest.mark.parametrize(
    ("code", "call", "wanted", "said", "hint"),
    [
        ("EBUSY", BIND, WANTED, "queue 3 of port no-such is held by another", "ss --xdp"),
        ("EOPNOTSUPP", "bind(XDP_ZEROCOPY)", ZERO_COPY, "has no zero-copy", 'mode="copy"'),
        ("EOPNOTSUPP", "bind()", WANTED, "refuses queue 3 of port no-such", 'mode="copy"'),
        ("ENOBUFS", "setsockopt(XDP_UMEM_REG)", WANTED, "17,825,792 bytes", "ulimit -l 17408 "),
        ("ENOMEM", "setsockopt(XDP_UMEM_REG)", WANTED, "locked memory", "LimitMEMLOCK=17408K"),
        ("ENOMEM", "setsockopt(XDP_RX_RING)", WANTED, "no memory for the rings", "than 2048"),
        ("ENOSPC", "fill ring", WANTED, "the UMEM of 100 chunks", "takes 8448 chunks"),
        ("ENOSPC", "fill ring", ZERO_COPY, "too few free ones", "takes 4096 chunks"),
        ("ENODEV", BIND, WANTED, "port no-such is gone", "ip link"),
        ("ENETDOWN", BIND, WANTED, "port no-such is down", "ip link set dev no-such up"),
        ("EAFNOSUPPORT", "socket(AF_XDP)", WANTED, "no AF_XDP", "CONFIG_XDP_SOCKETS"),
        ("ENOPROTOOPT", "setsockopt(SO_PREFER_BUSY_POLL)", WANTED, "busy polling", "5.11"),
        ("EINVAL", BIND, WANTED, "the kernel refuses queue 3", "ethtool -l no-such"),
        ("EINVAL", BIND, ZERO_COPY, "frames over several chunks", "6.6"),
        ("EIO", "mmap(x)", WANTED, r"mmap\(x\) failed: Input/output error", None),
    ],
)
def test_refusal_is_a_sentence_with_a_hint(
    code: str, call: str, wanted: Wanted, said: str, hint: str | None
) -> None:
    number = getattr(errno, code)
    with pytest.raises(FastpathError, match=said) as error:
        refuse_socket(-number, call, port="no-such", queue=3, wanted=wanted)
    raised = error.value
    assert (raised.errno, raised.port, raised.queue) == (number, "no-such", 3)
    assert raised.hint is None if hint is None else hint in str(raised.hint)


@pytest.mark.parametrize(
    ("call", "capability"),
    [("socket(AF_XDP)", "CAP_NET_RAW"), ("setsockopt(SO_BUSY_POLL)", "CAP_NET_ADMIN")],
)
def test_missing_privilege_names_the_capability(call: str, capability: str) -> None:
    with pytest.raises(PrivilegeError, match="queue 0 of port left") as error:
        refuse_socket(-errno.EPERM, call, port="left", queue=0, wanted=WANTED)
    assert capability in str(error.value.hint)


@pytest.mark.parametrize(
    ("value", "said", "hint"),
    [
        (1000, "ring is a power of two, not 1000", "512 or 1024"),
        (3, "ring is a power of two, not 3", "2 or 4"),
        (0, "ring is a power of two from 1 to 65536, not 0", None),
        (-4, "ring is a power of two from 1 to 65536, not -4", None),
        (1 << 17, "ring is a power of two from 1 to 65536, not 131072", None),
    ],
)
def test_no_power_of_two_names_the_nearest(value: int, said: str, hint: str | None) -> None:
    with pytest.raises(FastpathError) as error:
        check_power_of_two("ring", value, 1, 65536)
    assert (str(error.value), error.value.hint) == (said, hint)


@pytest.mark.parametrize("value", [1, 2, 2048, 65536])
def test_powers_of_two_are_fine(value: int) -> None:
    check_power_of_two("ring", value, 1, 65536)
