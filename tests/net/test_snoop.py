"""`xdpgw snoop openat` over real processes that open real files."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fastpath.toolchain import ROOT
from tests.net.process import TIMEOUT_S, Running, running, until, xdpgw
from xdpgw.testbed import TestBed

OPENER = """
import os, sys
for line in sys.stdin:
    count, path = line.rstrip("\\n").split(" ", 1)
    for _ in range(int(count)):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            pass
    print(flush=True)
"""
TRACING = Path("/sys/kernel/tracing")


@pytest.fixture(scope="module")
def bed() -> Iterator[TestBed]:
    with TestBed(("left",)) as made:
        yield made


class Opener:
    """A process that opens what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid

    def open(self, path: Path | str, count: int = 1) -> None:
        """Have it open a file so many times; returns when it has."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count} {path}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


@contextmanager
def opener() -> Iterator[Opener]:
    with subprocess.Popen(
        [sys.executable, "-c", OPENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Opener(process)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def snooping(bed: TestBed, folder: Path, child: Opener, *args: object) -> Iterator[Running]:
    """A snoop that has told a first call of the opener."""
    with running(bed, folder, "snoop", "openat", *args) as run:
        marker = folder / "marker"

        def told() -> bool:
            child.open(marker)
            return "marker" in run.out.read_text() or run.process.poll() is not None

        until(told, "a first call")
        assert run.process.poll() is None, run.err.read_text()
        yield run


def _waits_for_writer(pid: int) -> bool:
    return Path(f"/proc/{pid}/wchan").read_text() in ("wait_for_partner", "fifo_open")


def calls(run: Running) -> list[dict[str, Any]]:
    """What was told so far, but for the markers."""
    whole = run.out.read_text().rpartition("\n")[0]
    told = [json.loads(line) for line in whole.splitlines()]
    return [x for x in told if not (x["path"] or "").endswith("/marker")]


def wait_for(run: Running, path: Path | str) -> dict[str, Any]:
    """The first call that asked for a path."""
    found = until(lambda: [x for x in calls(run) if x["path"] == str(path)], f"{path}")
    call: dict[str, Any] = found[0]
    return call


def test_snoop_tells_who_opened_what_and_what_came_of_it(bed: TestBed, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("x")
    with opener() as child, snooping(bed, tmp_path, child, "--json") as run:
        child.open(file)
        child.open(tmp_path / "none")
        good, bad = wait_for(run, file), wait_for(run, tmp_path / "none")
        assert run.end() == 0
        assert good["comm"] == Path(f"/proc/{child.pid}/comm").read_text().strip()
    assert (good["pid"], good["tid"], good["uid"]) == (child.pid, child.pid, os.getuid())
    assert (good["call"], good["flags"]) == ("openat", "O_RDONLY|O_CLOEXEC")
    assert (good["dirfd"], good["mode"], good["cut"]) == (None, None, False)
    assert good["fd"] >= 0 and good["errno"] is None
    assert (bad["fd"], bad["errno"]) == (None, 2)
    assert 0 < good["took_ns"] < 60 * 10**9


def test_snoop_tells_openat2_with_its_how(bed: TestBed, tmp_path: Path) -> None:
    class How(ctypes.Structure):
        _fields_ = [(x, ctypes.c_uint64) for x in ("flags", "mode", "resolve")]

    path, folder = "made by openat2", os.open(tmp_path, os.O_RDONLY)
    how = How(os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640, 8)
    with opener() as child, snooping(bed, tmp_path, child, "--json") as run:
        fd = ctypes.CDLL(None).syscall(437, folder, path.encode(), ctypes.byref(how), 24)
        told = wait_for(run, path)
    os.close(fd)
    os.close(folder)
    assert told["call"] == "openat2"
    assert told["flags"] == "O_WRONLY|O_CREAT|O_CLOEXEC"
    assert (told["mode"], told["dirfd"], told["fd"]) == (0o640, folder, fd)
    assert told["pid"] == os.getpid()


def test_snoop_of_a_process_tells_no_other(bed: TestBed, tmp_path: Path) -> None:
    with (
        opener() as one,
        opener() as other,
        snooping(bed, tmp_path, one, "--json", "--pid", one.pid) as run,
    ):
        other.open(tmp_path / "not asked for")
        one.open(tmp_path / "last")
        wait_for(run, tmp_path / "last")
        assert run.end() == 0
        told = calls(run)
    assert {x["pid"] for x in told} == {one.pid}


def test_snoop_of_a_name_tells_no_other(bed: TestBed, tmp_path: Path) -> None:
    program = tmp_path / "a-name-of-16-chars"
    program.symlink_to("/bin/cat")
    with opener() as child, running(bed, tmp_path, "snoop", "openat", "--json", "--comm",
                                    program.name) as run:  # fmt: skip

        def told() -> bool:
            child.open(tmp_path / "not asked for")
            subprocess.run([program, "/etc/hostname"], check=True, capture_output=True)
            return any(x["path"] == "/etc/hostname" for x in calls(run))

        until(told, "a call of the program")
        assert run.end() == 0
        assert {x["comm"] for x in calls(run)} == {program.name[:15]}


@pytest.mark.parametrize("options", [(), ("--own",)])
def test_snoop_tells_its_own_calls_only_when_asked(
    options: tuple[str, ...], bed: TestBed, tmp_path: Path
) -> None:
    """It reads the number of the last tracepoint when it is attached to the others already."""
    with opener() as child, snooping(bed, tmp_path, child, "--json", *options) as run:
        assert run.end() == 0
        told = [x["path"] for x in calls(run) if x["pid"] == run.process.pid]
    assert any("sys_enter_openat2" in path for path in told) == bool(options)
    assert bool(told) == bool(options)


def test_snoop_tells_a_long_path_as_cut_and_one_of_its_bound_as_whole(
    bed: TestBed, tmp_path: Path
) -> None:
    whole, longer = ("/" + "x" * (n - 1) for n in (255, 256))
    with opener() as child, snooping(bed, tmp_path, child, "--json", "--pid", child.pid) as run:
        child.open(whole)
        child.open(longer)
        until(lambda: len(calls(run)) == 2, "two calls")
        first, second = calls(run)
    assert (first["path"], first["cut"]) == (whole, False)
    assert (second["path"], second["cut"]) == (longer[:255], True)


def test_snoop_tells_a_path_that_cannot_be_read(bed: TestBed, tmp_path: Path) -> None:
    with opener() as child, snooping(bed, tmp_path, child, "--json") as run:
        assert ctypes.CDLL(None).syscall(257, -100, ctypes.c_void_p(1), 0, 0) == -1
        (told,) = until(
            lambda: [x for x in calls(run) if x["pid"] == os.getpid() and x["errno"] == 14],
            "the call",
        )
        assert run.end() == 0
        assert "of 1 calls the path could not be read" in run.err.read_text()
    assert told["path"] is None


def test_snoop_reads_a_path_whose_page_was_not_there(bed: TestBed, tmp_path: Path) -> None:
    """In a program at the enter it could not be read: of a file's page, first touched by openat."""
    import mmap

    name = str(tmp_path / "in a page of a file").encode()
    (tmp_path / "names").write_bytes(name.ljust(mmap.PAGESIZE, b"\0"))
    with opener() as child, snooping(bed, tmp_path, child, "--json") as run:
        with (tmp_path / "names").open("r+b") as file, mmap.mmap(file.fileno(), 0) as page:
            at = ctypes.addressof(ctypes.c_char.from_buffer(page))
            ctypes.CDLL(None).syscall(257, -100, ctypes.c_void_p(at), 0, 0)
        told = wait_for(run, name.decode())
    assert told["errno"] == 2


def test_snoop_prints_bytes_of_a_path_that_are_no_text(bed: TestBed, tmp_path: Path) -> None:
    name = os.fsdecode(b'/\xff\xfe "quoted"\\ \x1b[31m\xc3\xbc')
    with opener() as child, snooping(bed, tmp_path, child, "--json") as run:
        assert not Path(name).exists()
        with pytest.raises(FileNotFoundError):
            os.open(name, os.O_RDONLY)
        assert wait_for(run, name)["pid"] == os.getpid()
    folder = tmp_path / "lines"
    folder.mkdir()
    with opener() as child, snooping(bed, folder, child) as run:
        with pytest.raises(FileNotFoundError):
            os.open(name, os.O_RDONLY)
        until(lambda: "quoted" in run.out.read_text(), "the line")
        (line,) = (x for x in run.out.read_text().splitlines() if "quoted" in x)
    assert line.endswith(r' ENOENT O_RDONLY|O_CLOEXEC /\xff\xfe "quoted"\ \x1b[31mü')


def test_snoop_of_a_burst_loses_nothing_uncounted(bed: TestBed, tmp_path: Path) -> None:
    count, path = 100_000, tmp_path / "burst"
    path.touch()
    with opener() as child, snooping(bed, tmp_path, child, "--json", "--pid", child.pid) as run:
        child.open(path, count)
        assert run.end() == 0
        told = run.out.read_text().count(f'"{path}"')
        said = run.err.read_text()
    lost = int(said.partition("printed; ")[2].partition(" ")[0] or 0)
    assert told + lost == count
    assert told > 0


def test_snoop_whose_reader_is_stuck_counts_what_it_lost(bed: TestBed, tmp_path: Path) -> None:
    count, path = 100_000, tmp_path / "burst"
    path.touch()
    with opener() as child, snooping(bed, tmp_path, child, "--json", "--pid", child.pid) as run:
        run.tell(signal.SIGSTOP)
        child.open(path, count)
        run.tell(signal.SIGCONT)
        assert run.end() == 0
        told = run.out.read_text().count(f'"{path}"')
        said = run.err.read_text()
    lost = int(said.partition("printed; ")[2].partition(" ")[0] or 0)
    assert told + lost == count
    assert lost > 50_000


def test_snoop_says_what_had_not_returned(bed: TestBed, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with opener() as child, snooping(bed, tmp_path, child, "--json", "--pid", child.pid) as run:
        assert child.process.stdin is not None
        child.process.stdin.write(f"1 {fifo}\n")
        child.process.stdin.flush()
        until(lambda: _waits_for_writer(child.pid), "the opener waits for a writer")
        assert run.end() == 0
        assert "1 calls had not returned" in run.err.read_text()
        os.close(os.open(fifo, os.O_WRONLY))


MOUNTING = """
import json, os, signal, subprocess, sys

def snoops(count):
    command = [sys.executable, "-m", "xdpgw", "snoop", "openat", "--own"]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, **both) for _ in range(count)]
    for run in runs:
        while "sys_enter_openat2" not in run.stdout.readline():
            pass
    for run in runs:
        run.send_signal(signal.SIGINT)
    said = "".join(run.communicate()[1] for run in runs)
    mounts = [line.split()[1] for line in open("/proc/mounts")]
    return said.count("tracefs was not mounted"), mounts.count("/sys/kernel/tracing")

while os.path.ismount("/sys/kernel/tracing"):
    subprocess.run(["umount", "/sys/kernel/tracing"], check=True)
print(json.dumps([snoops(2), snoops(1)]))
"""


def test_snoop_mounts_tracefs_once_where_it_is_missing() -> None:
    """In mounts of its own, where no process from outside is seen."""
    alone = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*alone, sys.executable, "-c", MOUNTING],
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(done.stdout) == [[1, 1], [0, 1]]


def test_snoop_verbose_tells_the_relocation(bed: TestBed, tmp_path: Path) -> None:
    with opener() as child, snooping(bed, tmp_path, child, "-v") as run:
        said = run.err.read_text()
    assert "types of this kernel: /sys/kernel/btf/vmlinux" in said
    assert "openat: trace_event_raw_sys_enter.args[1] at 24 in the object, at " in said
    assert "openat_return: trace_event_raw_sys_exit.ret at 16 in the object, at " in said


def test_snoop_in_a_pid_namespace_numbers_processes_as_there(tmp_path: Path) -> None:
    script = '"$0" -c "$1" & exec "$0" -m xdpgw snoop openat --json --pid $!'
    opening = f"while True:\n try: open({str(tmp_path / 'inside')!r})\n except OSError: pass\n"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [*command, script, sys.executable, opening], stdout=out, cwd=ROOT
        )
    try:
        until(lambda: "\n" in (tmp_path / "out").read_text(), "a call")
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
    told = json.loads((tmp_path / "out").read_text().partition("\n")[0])
    assert told["pid"] < 10
    assert told["path"] == str(tmp_path / "inside")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--btf", "/nonexistent"], 3, "no description of this kernel's types (BTF)"),
        (["--pid", "4194305"], 1, "there is no process 4194305"),
        (["--pid", "0"], 2, "--pid"),
        (["--comm", ""], 2, "--comm wants a name"),
    ],
)
def test_snoop_that_cannot_says_why(
    options: list[str], status: int, said: str, bed: TestBed
) -> None:
    done = xdpgw(bed, "snoop", "openat", *options)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_snoop_without_capabilities_says_so() -> None:
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    done = subprocess.run(
        [*without, sys.executable, "-m", "xdpgw", "snoop", "openat"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "no permission for loading openat" in done.stderr
    assert "CAP_PERFMON" in done.stderr


def test_snoop_whose_reader_has_gone_ends(bed: TestBed, tmp_path: Path) -> None:
    with opener() as child, snooping(bed, tmp_path, child) as run:
        assert run.end(signal.SIGTERM) == 0
    done = subprocess.run(
        [f"{sys.executable} -m xdpgw snoop openat --own | head -n 1"],
        shell=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == "" or "tracefs" in done.stderr


@pytest.mark.parametrize("under", [(), ("nohup",)])
def test_snoop_ends_with_its_terminal_but_under_nohup(
    under: tuple[str, ...], bed: TestBed, tmp_path: Path
) -> None:
    words = [*under, sys.executable, "-m", "xdpgw", "snoop", "openat"]
    out = tmp_path / "out.txt"
    with opener() as child, out.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.DEVNULL, cwd=ROOT)

        def told(name: str) -> bool:
            child.open(tmp_path / name)
            return name in out.read_text() or process.poll() is not None

        try:
            until(lambda: told("before"), "a call")
            process.send_signal(signal.SIGHUP)
            if under:
                until(lambda: told("behind"), "a call after the signal")
                process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0
            assert ("behind" in out.read_text()) == bool(under)
        finally:
            process.kill()
            process.wait()


def test_snoop_into_a_full_disk_says_so(bed: TestBed) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xdpgw", "snoop", "openat", "--own"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 1
    said = [x for x in done.stderr.splitlines() if "tracefs" not in x]
    assert said == ["xdpgw: cannot write to standard output: No space left on device"]


def test_snoop_works_where_ip_netns_exec_hides_tracefs(tmp_path: Path) -> None:
    name = f"snoop-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        words = ["ip", "netns", "exec", name, sys.executable, "-m", "xdpgw", "snoop", "openat"]
        with (tmp_path / "out").open("w") as out:
            process = subprocess.Popen(
                [*words, "--own"], stdout=out, stderr=subprocess.STDOUT, cwd=ROOT
            )
        until(lambda: "sys_enter_openat2" in (tmp_path / "out").read_text(), "a call")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    mounts = Path("/proc/mounts").read_text().splitlines()
    assert sum(x.split()[1] == str(TRACING) for x in mounts) == 1
