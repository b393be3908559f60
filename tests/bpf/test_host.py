"""The datapath's source as a program of the host, under ASan and UBSan.

The verifier proves that the object reads no byte outside of a frame; here the same source has to
show it, byte for byte, and on a machine without BPF.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from dataclasses import asdict, astuple
from pathlib import Path

import pytest

from tests.fastpath.toolchain import ROOT
from tests.frames import eth, ipv4, ipv6, tcp
from tests.judges import KEY_FIELDS
from tests.packets import POLICIES, ROWS, Row, rows_by_policy
from tests.reference import Judgement, Reference
from xdpgw import config, rules
from xdpgw.block_table import keys_of
from xdpgw.compile import Image, Session, compile_rules
from xdpgw.literals import addresses

from .host.driver import END, Answer, SanitizerReport, Script, build, run

SEED = int(os.environ.get("XDPGW_SEED", "20240229"))
RUNS = 200_000
SAMPLE_EVERY = 40
PORTS = ("left", "right")
LONG_FRAME = 1600
FOLLOW = """
[policy]
fragments = "follow"
rules = "web tx tcp to port 80"
"""
LOGGING = '\n[log]\nsources = "new"\nwindow = "1s"\nrate = "20/s"\n'
SESSION = Session("10.1.0.1", 40000, "10.2.0.2", 22)
SESSION6 = Session("2001:db8:a::1", 40000, "2001:db8:b::2", 22)

SESSION_FRAMES = (
    eth(ipv4(tcp(sport=40000, dport=22), src="10.1.0.1", dst="10.2.0.2")),
    eth(ipv6(tcp(sport=40000, dport=22), src="2001:db8:a::1", dst="2001:db8:b::2")),
)


def image_of(policy: str) -> Image:
    return compile_rules(rules.resolve(config.loads(policy)))


def port_of(image: Image, port: str) -> str | None:
    return port if port in image.names.ports else next(iter(image.names.ports), None)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("host") / "xdpgw")


@pytest.mark.parametrize("multi_buffer", [False, True])
def test_host_each_row_judged_as_written(program: Path, multi_buffer: bool) -> None:
    script, rows = Script(), list[Row]()
    for policy, of_policy in rows_by_policy().items():
        image = image_of(POLICIES[policy])
        for port in PORTS:
            some = [row for row in of_policy if row.port == port]
            if some:
                script.policy(image, port, multi_buffer=multi_buffer)
            for row in some:
                script.frame(row.frame)
            rows += some
    wrong: list[tuple[object, ...]] = []
    for row, answer in zip(rows, run(program, script), strict=True):
        got = answer.outcome()
        wanted = (row.verdict, row.reason, row.rule)
        if (got["verdict"], got["reason"], got["rule"]) != wanted:
            wrong.append((row.name, wanted, got))
        keys = {name: got["key"][name] for name in row.key}
        if keys != row.key:
            wrong.append((row.name, row.key, keys))
    assert not wrong
    assert len(rows) == len(ROWS)


def fuzz_script(policies: dict[str, str], runs: int, seed: int) -> Script:
    """All policies, each with all rows as the corpus."""
    script = Script()
    sessions = (None, SESSION, SESSION6)
    for number, policy in enumerate(policies.values()):
        image = image_of(policy + LOGGING)
        script.policy(
            image,
            port_of(image, PORTS[number % 2]),
            session=sessions[number % 3] if "guard" in policy else None,
            multi_buffer=bool(number % 4),
        )
        for row in ROWS:
            if len(row.frame) < LONG_FRAME:
                script.corpus(row.frame)
        script.fuzz(seed + number, runs // len(policies), SAMPLE_EVERY)
    return script


def test_host_fuzz_is_clean(program: Path) -> None:
    answers = run(program, fuzz_script({**POLICIES, "follow": FOLLOW}, RUNS, SEED))
    assert sum(answer.length for answer in answers if answer.action == END) >= RUNS


def test_host_fuzz_agrees_with_reference(program: Path) -> None:
    checked = 0
    for number, (name, policy) in enumerate(POLICIES.items()):
        image = image_of(policy)
        port = port_of(image, PORTS[number % 2])
        session = (SESSION, SESSION6)[number % 2] if name.startswith("guard") else None
        ssh = astuple(session) if session else None
        judge = Reference.from_text(policy, ssh=ssh)
        script = Script()
        script.policy(image, port, session=session)
        for frame in (*(row.frame for row in ROWS), *SESSION_FRAMES):
            script.corpus(frame)
        script.fuzz(SEED - number - 1, 4000, 10)
        for answer in run(program, script):
            if answer.frame is not None:
                assert_agrees(name, answer, judge.judge(answer.frame, port))
                checked += 1
    assert checked >= 400 * len(POLICIES)


def test_host_lets_the_session_pass(program: Path) -> None:
    script = Script()
    for session in (SESSION, SESSION6):
        script.policy(image_of(POLICIES["guard"]), "left", session=session)
        for frame in SESSION_FRAMES:
            script.frame(frame)
    reasons = [answer.outcome()["reason"] for answer in run(program, script)]
    assert reasons == ["guard", "default", "default", "guard"]


BLOCKED = ["10.0.0.0/8", "10.1.0.1", "2001:db8:a::/48", "2001:db8:a::1", "::/1"]


def test_host_blocks_sources(program: Path) -> None:
    script = Script()
    text = '[policy]\nallow = ["10.1.0.0/24", "2001:db8:a::2"]\n[ports.left]\n'
    script.policy(image_of(text), "left", session=SESSION)
    sources = [prefix for word in BLOCKED for prefix in addresses(word)]
    script.blocks(keys_of(sources), (0, 0, 1, 1, 2))  # at 1, what ends at 1 is over
    for layer, source in (
        (ipv4, "10.1.0.1"),
        (ipv4, "10.1.1.1"),
        (ipv4, "11.1.1.1"),
        (ipv6, "2001:db8:a::1"),
        (ipv6, "2001:db8:a::2"),
        (ipv6, "a000::"),
    ):
        script.frame(eth(layer(tcp(), src=source)))
    reasons = [answer.outcome()["reason"] for answer in run(program, script)]
    assert reasons == ["default", "block", "default", "block", "default", "default"]


def test_host_fuzz_of_blocks_is_clean(program: Path) -> None:
    script = Script()
    sources = [prefix for word in BLOCKED for prefix in addresses(word)]
    for session in (SESSION, SESSION6):
        image = image_of('[policy]\nallow = ["10.1.0.2"]\n[ports.left]\n' + LOGGING)
        script.policy(image, "left", session=session)
        script.blocks(keys_of(sources), (0, 0, 1, 0, 2))
        for frame in (*(row.frame for row in ROWS if len(row.frame) < LONG_FRAME), *SESSION_FRAMES):
            script.corpus(frame)
        script.fuzz(SEED, 20_000, 10)
    answers = run(program, script)
    reasons = Counter(x.outcome()["reason"] for x in answers if x.frame is not None)
    assert reasons["block"] > 100 < reasons["default"]


def assert_agrees(policy: str, answer: Answer, wanted: Judgement) -> None:
    got, where = answer.outcome(), (policy, (answer.frame or b"").hex())
    for field in ("verdict", "reason", "rule", "target"):
        assert got[field] == getattr(wanted, field), (field, where, got, wanted)
    if got["reason"] != "malformed":
        key = asdict(wanted.key)
        assert got["key"] == {field: key[field] for field in KEY_FIELDS}, where


FAULTS = {
    "bounds check counts half of the length": (
        "parse.h",
        "return at + len > data_end ? NULL : at;",
        "return at + len / 2 > data_end ? NULL : at;",
        "heap-buffer-overflow",
    ),
    "bounds check is off by one": (
        "parse.h",
        "return at + len > data_end ? NULL : at;",
        "return at + len > data_end + 1 ? NULL : at;",
        "heap-buffer-overflow",
    ),
    "shift of a signed number": (
        "parse.h",
        "header = ip->ihl * 4;",
        "header = ip->ihl * 4 + 0 * (ip->ihl << 31);",
        "runtime error: left shift",
    ),
    "an event's last bytes are not written": (
        "event.h",
        "event->zero[1] = 0;",
        "",
        "bytes that nobody wrote",
    ),
    "a limited event is not counted": (
        "event.h",
        "count_log(XG_LOG_LIMITED);",
        "",
        "books do not balance",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_host_fuzz_finds(fault: str, tmp_path: Path) -> None:
    header, right, wrong, report = FAULTS[fault]
    shutil.copytree(ROOT / "bpf", tmp_path / "bpf")
    text = (tmp_path / "bpf" / header).read_text()
    assert text.count(right) == 1
    (tmp_path / "bpf" / header).write_text(text.replace(right, wrong))
    program = build(tmp_path / "xdpgw", bpf=tmp_path / "bpf")
    policies = dict(random.Random(SEED).sample(sorted(POLICIES.items()), 3))
    with pytest.raises(SanitizerReport, match=report):
        run(program, fuzz_script(policies, 20_000, SEED))
