"""xdpgw.kernel against the kernel: objects, maps, programs, links, pins, and each refusal."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fastpath.toolchain import ROOT, bpf_object
from tests.namespaces import needs_network_namespaces
from xdpgw.errors import AbiMismatch, BusyError, KernelError, VerifierError
from xdpgw.kernel import (
    XDP_HAS_FRAGS,
    BpfObject,
    Link,
    Map,
    Program,
    ensure_bpffs,
    holder_of,
    netns_inode,
    possible_cpus,
)

from .private_netns import in_netns, ip, open_fds

PASS, TX = 2, 3  # enum xdp_action
FRAME = bytes(60)


def u32(*numbers: int) -> bytes:
    return np.array(numbers, np.uint32).tobytes()


@pytest.fixture
def elf() -> bytes:
    return bpf_object("bpf/tiny.bpf.c")


@pytest.fixture
def tiny(elf: bytes) -> Iterator[BpfObject]:
    with BpfObject(elf, name="tiny") as obj:
        obj.load()
        yield obj


@pytest.fixture
def table() -> Iterator[Map]:
    with Map.create("hash", "t_table", key=4, value=8, entries=3) as table:
        yield table


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder on the bpffs, gone afterwards with all pins in it."""
    path = ensure_bpffs() / f"t-{uuid.uuid4().hex}"
    path.mkdir()
    try:
        yield path
    finally:
        for pin in path.iterdir():
            pin.unlink()
        path.rmdir()


# Maps


def test_map_gives_back_what_was_put_in(table: Map) -> None:
    table.update(u32(1), b"12345678")
    table.update(u32(2), b"abcdefgh")
    assert table.lookup(u32(1)) == b"12345678"
    assert dict(table.items()) == {u32(1): b"12345678", u32(2): b"abcdefgh"}
    table.delete(u32(1))
    assert dict(table.items()) == {u32(2): b"abcdefgh"}


def test_map_info_tells_what_was_asked_for(table: Map) -> None:
    info = table.info()
    assert (info.name, info.type, info.flags) == ("t_table", 1, 0)
    assert (info.key_size, info.value_size, info.max_entries) == (4, 8, 3)
    with Map.from_id(info.id) as again:
        assert again.info() == info


def test_map_missing_key_is_a_key_error(table: Map) -> None:
    with pytest.raises(KeyError):
        table.lookup(u32(1))
    with pytest.raises(KeyError):
        table.delete(u32(1))


@pytest.mark.parametrize(("key", "value"), [(b"123", bytes(8)), (bytes(4), bytes(7))])
def test_map_key_or_value_of_another_size_is_refused(table: Map, key: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        table.update(key, value)


def test_map_update_keeps_to_its_flags(table: Map) -> None:
    with pytest.raises(KernelError) as missing:
        table.update(u32(1), bytes(8), flags=2)
    assert missing.value.errno == errno.ENOENT
    table.update(u32(1), bytes(8), flags=1)
    with pytest.raises(KernelError) as there:
        table.update(u32(1), bytes(8), flags=1)
    assert there.value.errno == errno.EEXIST


def test_update_many_fills_a_table(table: Map) -> None:
    keys, values = np.array([3, 1, 2], np.uint32), np.array([30, 10, 20], np.uint64)
    table.update_many(keys, values)
    found = {int.from_bytes(k, "little"): int.from_bytes(v, "little") for k, v in table.items()}
    assert found == {1: 10, 2: 20, 3: 30}


def test_update_many_takes_rows_of_bytes_that_are_not_contiguous(table: Map) -> None:
    keys = np.array([[1, 9], [2, 9]], np.uint32)[:, :1]
    table.update_many(keys, np.arange(32, dtype=np.uint8).reshape(2, 16)[:, ::2])
    assert table.lookup(u32(2)) == bytes(range(16, 32, 2))


def test_update_many_of_nothing_is_fine(table: Map) -> None:
    table.update_many(np.empty((0, 4), np.uint8), np.empty((0, 8), np.uint8))
    assert not list(table.items())


def test_update_many_past_the_end_tells_where(table: Map) -> None:
    with pytest.raises(KernelError, match=r"entry 3 of 5 into map t_table \(it takes 3 entries\)"):
        table.update_many(np.arange(5, dtype=np.uint32), np.zeros(5, np.uint64))
    assert len(list(table.items())) == 3


def test_fill_of_a_full_map_tells_how_many_are_in(table: Map) -> None:
    keys, values = np.arange(5, dtype=np.uint32), np.arange(5, dtype=np.uint64)
    assert table.fill(keys[:2], values[:2]) == 2
    assert table.fill(keys, values) == 3
    assert table.fill(keys[3:], values[3:]) == 0


@pytest.mark.parametrize(("written", "wanted"), [([2, 1, 2], 5), ([2, 0], 2), ([0], 0)])
def test_fill_goes_on_after_a_lack_of_memory_while_it_gets_on(
    table: Map, monkeypatch: pytest.MonkeyPatch, written: list[int], wanted: int
) -> None:
    offered, left = [], list(written)

    def write(keys: Any, values: Any) -> tuple[int, int]:
        offered.append(len(keys))
        done = left.pop(0)
        return done, 0 if done == len(keys) else -errno.ENOMEM

    monkeypatch.setattr(table, "_write", write)
    assert table.fill(np.arange(5, dtype=np.uint32), np.zeros(5, np.uint64)) == wanted
    assert offered == [5 - sum(written[:n]) for n in range(len(written))]


def test_read_gives_all_of_a_hash_and_delete_many_takes_them(table: Map) -> None:
    keys, values = table.read()
    assert (keys.shape, values.shape) == ((0, 4), (0, 8))
    table.update_many(np.array([7, 8, 9], np.uint32), np.array([70, 80, 90], np.uint64))
    keys, values = table.read()
    pairs = dict(zip(keys.view(np.uint32).flat, values.view(np.uint64).flat, strict=True))
    assert pairs == {7: 70, 8: 80, 9: 90}
    table.delete_many(np.array([9, 7], np.uint32))
    assert list(table.items()) == [(u32(8), (80).to_bytes(8, "little"))]
    table.delete_many(np.empty(0, np.uint32))
    with pytest.raises(KernelError, match="deleting key 1 of 2 in map t_table"):
        table.delete_many(np.array([8, 5], np.uint32))
    with pytest.raises(ValueError, match="keys of 4 bytes"):
        table.delete_many(np.array([8], np.uint64))


def test_update_many_of_another_size_is_refused(table: Map) -> None:
    with pytest.raises(ValueError, match="keys of 4 and values of 8"):
        table.update_many(np.arange(2, dtype=np.uint32), np.zeros(2, np.uint32))


def test_update_many_falls_back_to_single_updates_where_a_map_knows_no_batches() -> None:
    def body() -> None:
        with Map.create("devmap", "t_devmap", key=4, value=4, entries=4) as ports:
            loopback = socket.if_nametoindex("lo")
            ports.update_many(np.arange(4, dtype=np.uint32), np.full(4, loopback, np.uint32))
            assert [value for _, value in ports.items()] == [u32(loopback)] * 4
            with pytest.raises(KernelError, match="entry 1 of 2"):
                ports.update_many(
                    np.arange(2, dtype=np.uint32), np.array([loopback, 999], np.uint32)
                )

    in_netns(body)


def test_update_many_fills_a_trie() -> None:
    with Map.create("lpm_trie", "t_trie", key=8, value=4, entries=300, flags=1) as trie:
        keys = np.zeros((300, 2), ">u4")
        keys[:, 0] = 0x18000000  # 24, in the host's order
        keys[:, 1] = np.arange(300) << 8
        trie.update_many(keys, np.arange(300, dtype=np.uint32))
        address = (7 << 8 | 99).to_bytes(4, "big")
        assert trie.lookup(u32(32) + address) == u32(7)


def test_percpu_has_a_value_for_each_cpu() -> None:
    with Map.create("percpu_array", "t_percpu", key=4, value=16, entries=5) as counts:
        assert counts.value_bytes == 16 * possible_cpus()
        for number in (2, 3):
            counts.update(u32(number), np.array([7, 70], np.uint64).tobytes() * possible_cpus())
        numbers = counts.percpu()
        assert numbers.shape == (5, possible_cpus(), 2)
        assert numbers.sum(axis=1).tolist() == [
            [7 * possible_cpus() * x, 70 * possible_cpus() * x] for x in (0, 0, 1, 1, 0)
        ]
        counts.zero([1, 2])
        assert counts.percpu().any(axis=(1, 2)).tolist() == [False, False, False, True, False]


def test_percpu_of_a_plain_map_is_refused(table: Map) -> None:
    with pytest.raises(ValueError, match="each CPU"):
        table.percpu()


def test_array_reads_all_values() -> None:
    with Map.create("array", "t_array", key=4, value=3, entries=1000) as array:
        array.update(u32(999), b"end")
        values = array.array()
        assert values.shape == (1000, 3)
        assert values[999].tobytes() == b"end"
        assert not values[:999].any()


def test_array_of_a_hash_is_refused(table: Map) -> None:
    with pytest.raises(KernelError, match="reading map t_table"):
        table.array()


def test_map_the_kernel_refuses_tells_which() -> None:
    with pytest.raises(KernelError, match="creating the array map t_bad of 0 entries") as error:
        Map.create("array", "t_bad", key=4, value=4, entries=0)
    assert error.value.errno == errno.EINVAL


# Descriptors


def test_close_twice_gives_one_descriptor_back() -> None:
    before = open_fds()
    table = Map.create("array", "t_close", key=4, value=4, entries=1)
    assert open_fds() == before + 1
    table.close()
    with open(os.devnull, encoding="ascii") as other:  # takes the number that was freed
        table.close()
        assert os.fstat(other.fileno())
    with pytest.raises(ValueError, match="Map is closed"):
        table.lookup(u32(0))


def test_forgotten_map_warns_and_is_closed() -> None:
    before = open_fds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Map.create("array", "t_forgotten", key=4, value=4, entries=1)
        gc.collect()
    assert any(issubclass(x.category, ResourceWarning) for x in caught)
    assert open_fds() == before


def test_lent_map_ends_with_its_object(elf: bytes) -> None:
    before = open_fds()
    with BpfObject(elf, name="tiny") as obj:
        obj.load()
        lent = obj.map("counts")
        lent.close()  # the object's to close
        lent = obj.map("counts")
        assert lent.info().name == "counts"
    assert lent.closed
    with pytest.raises(ValueError, match="closed"):
        lent.percpu()
    assert open_fds() == before


def test_refusals_leak_no_descriptor(elf: bytes) -> None:
    def refused() -> None:
        with (
            pytest.raises(VerifierError),
            BpfObject(bpf_object("bpf/refused.bpf.c"), name="x") as o,
        ):
            o.load()
        with pytest.raises(KernelError), BpfObject(elf, name="tiny") as obj:
            obj.load(entries={"nothing": 1})
        with (
            Map.create("hash", "t_other", key=4, value=8, entries=1) as other,
            BpfObject(elf, name="tiny") as obj,
            pytest.raises(AbiMismatch),
        ):
            obj.load(reuse={"table": other})
        with pytest.raises(KernelError):
            Map.from_pin("/sys/fs/bpf/nothing-of-this-name")

    refused()  # what is opened once and kept (a cache, an import) is so by now
    before = open_fds()
    refused()
    assert open_fds() == before


# Pins


def test_pinned_map_is_the_same_map(table: Map, folder: Path) -> None:
    table.update(u32(1), b"12345678")
    table.pin(folder / "table")
    with Map.from_pin(folder / "table") as again:
        assert again.info() == table.info()
        assert again.lookup(u32(1)) == b"12345678"


def test_pin_name_that_is_taken_is_refused(table: Map, folder: Path) -> None:
    table.pin(folder / "table")
    with pytest.raises(KernelError, match="pinning a map at") as error:
        table.pin(folder / "table")
    assert error.value.errno == errno.EEXIST


def test_pin_outside_of_a_bpffs_is_refused_with_a_remedy(table: Map, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="is not on a BPF file system") as error:
        table.pin(tmp_path / "table")
    assert error.value.hint is not None
    assert "/sys/fs/bpf" in error.value.hint


def test_pin_that_is_not_there_is_enoent(folder: Path) -> None:
    with pytest.raises(KernelError, match="opening the pin") as error:
        Link.from_pin(folder / "nothing")
    assert error.value.errno == errno.ENOENT


# Objects


def test_object_names_the_maps_of_its_source(tiny: BpfObject) -> None:
    assert sorted(tiny.map_names()) == ["counts", "events", "explained", "table"]


def test_load_sets_the_constant_and_nothing_beside_it(elf: bytes) -> None:
    with BpfObject(elf, name="tiny") as obj:
        obj.load(rodata=u32(TX, 5))
        program = obj.program("tiny")
        assert program.test_run(FRAME).retval == TX
        assert obj.map("counts").percpu()[0].sum(axis=0).tolist() == [5, 60]


def test_load_keeps_the_compiled_constant_where_none_is_given(tiny: BpfObject) -> None:
    assert tiny.program("tiny").test_run(FRAME).retval == PASS


def test_constant_of_another_size_is_an_abi_mismatch(elf: bytes) -> None:
    with BpfObject(elf, name="tiny") as obj, pytest.raises(AbiMismatch, match="cfg"):
        obj.load(rodata=bytes(12))


def test_constant_that_is_not_there_is_named(elf: bytes) -> None:
    with BpfObject(elf, name="tiny") as obj, pytest.raises(KernelError, match="no constant nope"):
        obj.load(rodata=bytes(8), symbol="nope")


def test_load_sets_entries(elf: bytes) -> None:
    with BpfObject(elf, name="tiny") as obj:
        obj.load(entries={"table": 17})
        assert obj.map("table").info().max_entries == 17


def test_load_takes_kept_maps(elf: bytes, tiny: BpfObject) -> None:
    kept = tiny.map("table")
    with BpfObject(elf, name="tiny") as obj:
        obj.load(reuse={name: tiny.map(name) for name in tiny.map_names()})
        assert obj.map("table").info() == kept.info()
        kept.update(u32(0), u32(1))
        assert obj.program("tiny").test_run(FRAME).retval == TX


def test_load_takes_a_kept_map_with_more_entries(elf: bytes) -> None:
    with (
        Map.create("hash", "t_more", key=4, value=4, entries=99) as kept,
        BpfObject(elf, name="tiny") as obj,
    ):
        obj.load(reuse={"table": kept})
        assert obj.map("table").info().max_entries == 99


def test_load_tells_all_differences_of_a_kept_map(elf: bytes) -> None:
    with (
        Map.create("array", "t_other", key=4, value=16, entries=1) as kept,
        BpfObject(elf, name="tiny") as obj,
        pytest.raises(AbiMismatch) as error,
    ):
        obj.load(reuse={"table": kept})
    assert error.value.struct == "map table"
    assert (error.value.wanted, error.value.got) == (
        "type 1, value bytes 4",
        "type 2, value bytes 16",
    )


def test_load_with_too_few_kept_entries_is_refused(elf: bytes) -> None:
    with (
        Map.create("percpu_array", "t_few", key=4, value=16, entries=3) as kept,
        BpfObject(elf, name="tiny") as obj,
        pytest.raises(AbiMismatch) as error,
    ):
        obj.load(reuse={"counts": kept})
    assert (error.value.wanted, error.value.got) == ("max entries 4", "max entries 3")


@pytest.mark.parametrize("what", ["map", "program"])
def test_object_has_only_what_it_has(tiny: BpfObject, what: str) -> None:
    with pytest.raises(KernelError, match=f"tiny has no {what} nope") as error:
        getattr(tiny, what)("nope")
    assert error.value.errno == errno.ENOENT


def test_object_that_is_not_loaded_lends_nothing(elf: bytes) -> None:
    with BpfObject(elf, name="tiny") as obj, pytest.raises(KernelError):
        obj.program("tiny")


def test_object_loads_once(tiny: BpfObject) -> None:
    with pytest.raises(KernelError):
        tiny.load()


def test_bytes_that_are_no_object_are_refused() -> None:
    with pytest.raises(KernelError, match="not a BPF object"):
        BpfObject(b"\x7fELF, or so it says", name="x")


def test_verifier_refusal_carries_the_log_and_shows_its_reason() -> None:
    with (
        BpfObject(bpf_object("bpf/refused.bpf.c"), name="refused") as obj,
        pytest.raises(VerifierError, match="refuses program careless") as error,
    ):
        obj.load()
    assert error.value.errno in (errno.EACCES, errno.EINVAL)
    assert "invalid access to packet" in str(error.value)
    assert "processed" in error.value.log
    assert "libbpf" not in error.value.log


def test_load_prints_nothing(elf: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with BpfObject(bpf_object("bpf/refused.bpf.c"), name="refused") as obj:
        with pytest.raises(VerifierError):
            obj.load()
        assert "BEGIN PROG LOAD LOG" in obj.log
    with BpfObject(elf, name="tiny") as obj:
        obj.load()
        assert obj.log == ""
    assert capfd.readouterr() == ("", "")


# Programs


def test_program_info_tells_what_it_cost(tiny: BpfObject) -> None:
    info = tiny.program("tiny").info()
    assert (info.name, info.type) == ("tiny", 6)
    assert info.xlated_bytes > 0
    assert info.verified_insns is not None
    assert info.verified_insns > 10
    assert len(bytes.fromhex(info.tag)) == 8
    with Program.from_id(info.id) as again:
        assert again.info() == info


def test_test_run_gives_the_frame_back(tiny: BpfObject) -> None:
    frame = bytes([0, *range(99)])
    run = tiny.program("tiny").test_run(frame, repeat=10)
    assert (run.retval, run.data) == (PASS, frame)
    assert tiny.map("counts").percpu()[0].sum(axis=0).tolist() == [10, 1000]


def test_test_run_of_a_frame_without_a_header_is_refused(tiny: BpfObject) -> None:
    with pytest.raises(KernelError, match="a frame of 13 bytes") as error:
        tiny.program("tiny").test_run(bytes(13))
    assert error.value.errno == errno.EINVAL


def test_test_many_pairs_each_frame_with_its_answer(tiny: BpfObject) -> None:
    lengths = [14, 60, 1500, 15, 3000] * 20
    retvals, events = tiny.program("tiny").test_many(
        [bytes(length) for length in lengths], tiny.map("explained")
    )
    assert retvals.tolist() == [PASS] * 100
    assert events["len_bytes"].tolist() == lengths
    assert events["ts_ns"].tolist() == list(range(1, 101))


def test_test_many_of_nothing_is_nothing(tiny: BpfObject) -> None:
    retvals, events = tiny.program("tiny").test_many([], tiny.map("explained"))
    assert len(retvals) == len(events) == 0


def test_test_many_names_the_frame_that_failed(tiny: BpfObject) -> None:
    with pytest.raises(KernelError, match="frame 1 of 3, 13 bytes long"):
        tiny.program("tiny").test_many([bytes(14), bytes(13), bytes(14)])


def test_test_many_into_a_map_of_another_struct_is_refused(tiny: BpfObject) -> None:
    with pytest.raises(AbiMismatch, match="struct xg_event"):
        tiny.program("tiny").test_many([FRAME], tiny.map("table"))


# Links, on veth pairs in a network namespace of the test's own


def veth(mtu: int = 1500) -> int:
    """A pair t0 and t1, up; returns the ifindex of t0."""
    ip(f"link add t0 mtu {mtu} type veth peer name t1 mtu {mtu}")
    ip("link set t0 up")
    ip("link set t1 up")
    return socket.if_nametoindex("t0")


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_link_holds_the_port_until_it_is_closed(tiny: BpfObject, mode: str) -> None:
    def body() -> None:
        port, program = veth(), tiny.program("tiny")
        with Link.attach(program, port, mode) as link:
            assert link.info().ifindex == port
            assert link.info().prog_id == program.info().id
            holder = holder_of(port)
            assert holder is not None
            assert (holder.mode, holder.prog_name) == (mode, "tiny")
            with Link.from_id(link.info().id) as again:
                assert again.info() == link.info()
        assert holder_of(port) is None

    in_netns(body)


def test_pinned_link_outlives_its_descriptor_until_it_is_detached(
    tiny: BpfObject, folder: Path
) -> None:
    def body() -> None:
        port = veth()
        with Link.attach(tiny.program("tiny"), port, "native") as link:
            link.pin(folder / "link")
        assert holder_of(port) is not None
        with Link.from_pin(folder / "link") as link:
            link.detach()
            assert link.info().ifindex == 0
        assert holder_of(port) is None

    in_netns(body)


def test_update_changes_programs_in_place(tiny: BpfObject, elf: bytes) -> None:
    def body() -> None:
        port, old = veth(), tiny.program("tiny")
        with BpfObject(elf, name="other") as other, Link.attach(old, port, "native") as link:
            other.load()
            new = other.program("tiny")
            link.update(new, expected=old)
            assert link.info().prog_id == new.info().id
            with pytest.raises(BusyError, match="another program than expected"):
                link.update(new, expected=old)
            link.update(old)
            assert link.info().prog_id == old.info().id

    in_netns(body)


def test_update_of_a_port_that_is_gone_says_so(tiny: BpfObject) -> None:
    def body() -> None:
        with Link.attach(tiny.program("tiny"), veth(), "native") as link:
            ip("link del t0")
            assert link.info().ifindex == 0
            with pytest.raises(KernelError, match="port of this link is gone"):
                link.update(tiny.program("tiny"))

    in_netns(body)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_port_held_by_a_link_names_its_holder(tiny: BpfObject, mode: str) -> None:
    def body() -> None:
        port, program = veth(), tiny.program("tiny")
        with Link.attach(program, port, "native") as link:
            with pytest.raises(BusyError) as error:
                Link.attach(program, port, mode)
            said = str(error.value)
            assert "port t0 is held by" in said
            assert f"program {program.info().id} (tiny) in native mode" in said
            assert f"by link {link.info().id}" in said
            assert f"(pid {os.getpid()})" in said
            assert error.value.holder is not None

    in_netns(body)


def test_port_held_by_netlink_names_the_program_and_the_remedy(tiny: BpfObject) -> None:
    def body() -> None:
        port, program = veth(), tiny.program("tiny")
        attach = [
            "bpftool",
            "net",
            "attach",
            "xdpgeneric",
            "id",
            str(program.info().id),
            "dev",
            "t0",
        ]
        subprocess.run(attach, check=True)
        with pytest.raises(BusyError, match=rf"program {program.info().id} \(tiny\)") as error:
            Link.attach(program, port, "generic")
        assert "link" not in str(error.value)
        holder = holder_of(port)
        assert holder is not None
        assert holder.link_id is None
        ip("link set dev t0 xdpgeneric off")
        with Link.attach(program, port, "generic"):
            pass

    in_netns(body)


def test_native_mode_refuses_a_large_mtu_with_the_limit(tiny: BpfObject) -> None:
    def body() -> None:
        port, program = veth(mtu=3506), tiny.program("tiny")
        with Link.attach(program, port, "native"):
            pass
        ip("link set t0 mtu 3507")
        ip("link set t1 mtu 3507")
        with pytest.raises(
            KernelError, match=r"MTU \(here 3507\).* 3506 with pages of 4096"
        ) as error:
            Link.attach(program, port, "native")
        assert error.value.hint is not None
        assert "ip link set dev t0 mtu 1500" in error.value.hint
        with Link.attach(program, port, "generic"):
            pass

    in_netns(body)


def test_program_with_the_flag_for_frags_takes_a_large_mtu(elf: bytes) -> None:
    def body() -> None:
        with BpfObject(elf, name="tiny") as obj:
            obj.load(prog_flags={"tiny": XDP_HAS_FRAGS})
            with Link.attach(obj.program("tiny"), veth(mtu=9000), "native"):
                pass

    in_netns(body)


def test_program_flags_of_no_such_program_or_after_the_load_are_refused(elf: bytes) -> None:
    with BpfObject(elf, name="tiny") as obj:
        with pytest.raises(KernelError, match="no program other") as error:
            obj.load(prog_flags={"other": XDP_HAS_FRAGS})
        assert error.value.errno == errno.ENOENT
        obj.load()
        with pytest.raises(KernelError, match="program tiny") as error:
            obj.load(prog_flags={"tiny": XDP_HAS_FRAGS})
        assert error.value.errno == errno.EBUSY


def test_driver_that_refuses_an_update_says_what_to_do(elf: bytes, tiny: BpfObject) -> None:
    def body() -> None:
        with BpfObject(elf, name="tiny") as obj:
            obj.load(prog_flags={"tiny": XDP_HAS_FRAGS})
            with Link.attach(obj.program("tiny"), veth(mtu=9000), "native") as link:
                with pytest.raises(KernelError, match="the driver does not take") as error:
                    link.update(tiny.program("tiny"))
                assert error.value.errno == errno.ERANGE
                assert link.info().prog_id == obj.program("tiny").info().id

    in_netns(body)


def test_native_mode_of_a_port_without_it_points_to_generic(tiny: BpfObject) -> None:
    def body() -> None:
        ip("link add t-bridge type bridge")
        port = socket.if_nametoindex("t-bridge")
        with pytest.raises(KernelError, match="t-bridge has no native XDP") as error:
            Link.attach(tiny.program("tiny"), port, "native")
        assert error.value.hint is not None
        assert "generic" in error.value.hint

    in_netns(body)


def test_port_that_does_not_exist_is_named(tiny: BpfObject) -> None:
    needs_network_namespaces()
    with pytest.raises(KernelError, match="no interface 999999") as error:
        Link.attach(tiny.program("tiny"), 999999, "native")
    assert error.value.errno == errno.ENODEV


def test_live_frames_all_meet_the_program(tiny: BpfObject) -> None:
    def body() -> None:
        tiny.program("tiny").live_frames(FRAME, veth(), repeat=1000)
        assert tiny.map("counts").percpu()[0].sum(axis=0).tolist() == [1000, 60000]

    in_netns(body)


# Privileges, namespaces, file systems


def python(code: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, without what this one has imported and mounted."""
    command = [*prefix, sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_privilege_the_error_names_the_capabilities() -> None:
    done = python(
        "import os\n"
        "from xdpgw.kernel import Map\n"
        "from xdpgw.errors import PrivilegeError\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    Map.create('hash', 't', key=4, value=4, entries=1)\n"
        "except PrivilegeError as error:\n"
        "    print(error, '|', error.hint)\n"
    )
    assert "no permission for creating the hash map t" in done.stdout, done.stderr
    assert "CAP_BPF" in done.stdout


def test_netns_inode_is_that_of_the_thread() -> None:
    seen = []
    in_netns(lambda: seen.append(netns_inode()))
    assert seen[0] != netns_inode() == os.stat("/proc/self/ns/net").st_ino


SAY_BPFFS = (
    "from xdpgw.bpffs import ensure_bpffs, is_bpffs; p = ensure_bpffs(); print(p, is_bpffs(p))"
)


def test_bpffs_is_found_behind_a_private_sys() -> None:
    needs_network_namespaces()
    ensure_bpffs()
    code = (
        "import subprocess\nsubprocess.run(['mount', '-t', 'sysfs', 'sysfs', '/sys'], check=True)\n"
    )
    done = python(code + SAY_BPFFS, "unshare", "--net", "--mount")
    assert re.fullmatch(r"/proc/\d+/root/sys/fs/bpf True\n", done.stdout), done.stderr


def test_bpffs_is_mounted_where_there_is_none() -> None:
    ensure_bpffs()
    code = "import subprocess\nsubprocess.run(['umount', '-a', '-t', 'bpf'], check=True)\n"
    done = python(code + SAY_BPFFS, "unshare", "--mount", "--pid", "--fork", "--mount-proc")
    assert done.stdout == "/sys/fs/bpf True\n", done.stderr
