"""Reading a policy file: values, defaults, and the whole text of every error."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.error_rows import Row, rows
from xdpgw import _abi as abi
from xdpgw import config, config_reader
from xdpgw.config import PortSettings, SinkSettings, Target
from xdpgw.errors import ConfigError
from xdpgw.rules import Rate, resolve

EXAMPLE = '''\
[policy]
default   = "pass"            # pass | drop: what happens to a packet that no rule decides
malformed = "drop"            # pass | drop: see "Malformed" below
fragments = "rules"           # rules | drop | follow: see "Fragments" below
guard     = true              # see "Guard" below
rules = """
# name   action                               match                              options
ssh      pass                                 tcp from 10.0.0.0/8 to port 22
bad      drop                                 from @bad                          log 1/s
dns      limit 1000/s burst 2000 per source   udp to port 53
vxlan    af_xdp overlay else pass             udp to port 4789
"""

[sets]
bad = ["192.0.2.0/24", "2001:db8:bad::/48", { file = "feed.netset" }]
web = [80, 443, "8000-8100"]

[ports.eth0]
mode   = "auto"               # auto | native | generic; auto says which one it got
queues = "all"                # or a list of queue numbers

[af_xdp.overlay]              # a named target of the action af_xdp
handler = "reflect"

[log]
sources = "new"               # off | new | every: which packets tell their source address
window  = "60s"               # new: a source is new again after this
sinks   = ["stdout", { jsonl = "sources.jsonl" }]

[gateway]
on_exit = "keep"              # keep | detach: the filter when the process ends
'''


def errors(text: str, **kwargs: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.loads(text, file="p.toml", **kwargs)  # type: ignore[arg-type]
    assert caught.value.exit_status == 2
    assert str(caught.value).split("\n") == [str(x) for x in caught.value.diagnostics]
    return str(caught.value).split("\n")


@pytest.mark.parametrize("row", rows("config_errors.txt"), ids=lambda row: row.name)
def test_config_with_errors_tells_all_of_them(row: Row) -> None:
    assert errors(row.text, base=Path("sets")) == [f"p.toml:{x}" for x in row.errors]


def test_read_example_of_the_contract(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(EXAMPLE)
    (tmp_path / "feed.netset").write_text("198.51.100.7\n")
    policy = config.read(tmp_path / "edge.toml")
    assert [rule.name for rule in policy.rules] == ["ssh", "bad", "dns", "vxlan"]
    assert policy.policy == config.PolicySettings("pass", "drop", "rules", True)
    assert (4, 0xC6336407, 32) in policy.sets["bad"].prefixes
    assert policy.sets["web"].ranges == ((80, 80), (443, 443), (8000, 8100))
    assert policy.ports == {"eth0": PortSettings("eth0", "auto", "all")}
    assert policy.af_xdp == {"overlay": Target("overlay", "reflect")}
    assert policy.log.window_ns == 60 * 10**9
    assert policy.log.rate == Rate(100_000, "/s")
    assert policy.log.sinks == (
        SinkSettings("stdout"),
        SinkSettings("jsonl", tmp_path / "sources.jsonl"),
    )
    assert policy.gateway == config.GatewaySettings("keep", False)
    assert policy.warnings == ()
    assert policy.text == EXAMPLE
    assert [(rule.line, rule.column) for rule in policy.rules] == [(n, 1) for n in (8, 9, 10, 11)]


def test_loads_empty_file_gives_the_defaults() -> None:
    policy = config.loads("")
    assert policy.policy == config.PolicySettings("pass", "drop", "rules", True)
    assert (policy.rules, policy.sets, policy.ports, policy.af_xdp) == ((), {}, {}, {})
    assert policy.log == config.LogSettings()
    assert policy.log.sinks == (SinkSettings("stdout"),)


def test_loads_all_settings() -> None:
    policy = config.loads(
        """
        log = { sources = "every", window = "1h", rate = "600/m", sinks = [
            { jsonl = { path = "/var/log/x.jsonl", max_bytes = "100MiB", keep = 5 } },
        ] }
        gateway = { on_exit = "detach", coexist = true }
        [ports."eth0.100"]
        mode = "generic"
        queues = [0, 3]
        [af_xdp]
        a.handler = "forward:eth0.100"
        b.handler = "capture:x.pcap"
        c.handler = "python:my.module:main"
        """
    )
    assert policy.log == config.LogSettings(
        "every",
        3600 * 10**9,
        Rate(600, "/m"),
        (SinkSettings("jsonl", Path("/var/log/x.jsonl"), {"max_bytes": 100 * 2**20, "keep": 5}),),
    )
    assert policy.gateway == config.GatewaySettings("detach", True)
    assert policy.ports["eth0.100"] == PortSettings("eth0.100", "generic", (0, 3))
    assert policy.af_xdp["c"].handler == "python:my.module:main"


def test_loads_capture_with_its_options(tmp_path: Path) -> None:
    policy = config.loads(
        """
        [af_xdp.all]
        handler = "capture:all.pcapng"
        [af_xdp.some]
        handler = "capture:/var/tmp/a:b.pcapng"
        snaplen = 128
        max_bytes = "1GiB"
        keep = 0
        """,
        base=tmp_path,
    )
    assert policy.af_xdp == {
        "all": Target("all", "capture:all.pcapng", tmp_path / "all.pcapng"),
        "some": Target(
            "some", "capture:/var/tmp/a:b.pcapng", Path("/var/tmp/a:b.pcapng"), 128, 2**30, 0
        ),
    }
    every = policy.af_xdp["all"]
    assert (every.snaplen, every.max_bytes, every.keep) == (262_144, None, 5)


@pytest.mark.parametrize(
    ("handler", "kind", "argument"),
    [
        ("count", "count", ""),
        ("python:a.b:c", "python", "a.b:c"),
        ("capture:x:y", "capture", "x:y"),
    ],
)
def test_target_splits_its_handler_at_the_first_colon(
    handler: str, kind: str, argument: str
) -> None:
    target = Target("t", handler)
    assert (target.kind, target.argument) == (kind, argument)


def test_loads_fastpath() -> None:
    assert config.loads("").fastpath == config.FastpathSettings("auto", 2048, 0, 64, ())
    policy = config.loads(
        '[fastpath]\nmode = "copy"\nring = 64\nbusy_poll = "20us"\nbusy_budget = 8\ncpus = [2, 3]'
    )
    assert policy.fastpath == config.FastpathSettings("copy", 64, 20, 8, (2, 3))
    assert config.loads('fastpath.busy_poll = "10ms"').fastpath.busy_poll_us == 10_000
    assert config.loads('fastpath.busy_poll = "off"').fastpath.busy_poll_us == 0


def test_limits_of_the_reader_are_those_of_the_contract() -> None:
    assert (config_reader.MAX_PORTS, config_reader.MAX_TARGETS) == (abi.MAX_PORTS, abi.MAX_TARGETS)


@pytest.mark.parametrize(
    ("window", "ns"),
    [("1s", 10**9), ("1500ms", 15 * 10**8), ("10m", 600 * 10**9), ("1d", 86400 * 10**9)],
)
def test_window_in_any_unit(window: str, ns: int) -> None:
    assert config.loads(f'log.window = "{window}"').log.window_ns == ns


def test_errors_of_all_tables_come_in_the_order_of_the_file() -> None:
    text = 'log.window = 5\n[policy]\nrules = """\na dorp\nb pass on eth9\n"""\ngard = 1\n'
    assert errors(text) == [
        'p.toml:1:14: log.window is a number (write a time: "60s")',
        'p.toml:4:3: unknown action "dorp" (did you mean "drop"?)',
        'p.toml:5:11: unknown port "eth9" (add [ports.eth9])',
        'p.toml:7:1: unknown key "gard" in [policy] (did you mean "guard"?)',
    ]


def test_set_that_is_wrong_gives_no_second_error_where_it_is_used() -> None:
    text = 'policy.rules = "a drop from not @b"\n[sets]\nb = [{ file = "no" }]\n'
    assert errors(text) == [
        "p.toml:3:15: no cannot be read: No such file or directory (create it, or correct the path)"
    ]


def test_more_than_64_ports_is_an_error() -> None:
    text = "".join(f"[ports.p{n}]\n" for n in range(65))
    assert errors(text) == ["p.toml:65:8: more than 64 ports (take some out)"]


def test_more_than_10000_rules_is_an_error() -> None:
    rules = "".join(f"r{n} drop from 10.0.{n // 256}.{n % 256}\n" for n in range(10_001))
    assert errors(f'policy.rules = """\n{rules}"""') == [
        "p.toml:10002:1: more than 10000 rules (gather addresses and ports in sets)"
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[policy]\ndefault = drop\n", "p.toml:2:11: not TOML: invalid value (put text in quotes)"),
        ('policy.rules = """\nssh pass\n', "p.toml:3:1: not TOML: unterminated string"),
        ("[policy]\nguard = true\nguard = false\n", "p.toml:3:14: not TOML: cannot overwrite"),
        ("[policy", "p.toml:1:8: not TOML: "),
        ("a = " + "9" * 5000, "p.toml: not TOML: "),
        ("a = " + "[" * 20000, "p.toml: the policy nests too deeply"),
    ],
)
def test_text_that_is_not_toml_is_told_with_its_place(text: str, start: str) -> None:
    (error,) = errors(text)
    assert error.startswith(start)


def test_read_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path / "no.toml")
    assert str(caught.value) == (
        f"{tmp_path}/no.toml: the policy cannot be read: No such file or directory "
        "(create it, or correct the path)"
    )


def test_read_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the policy cannot be read: Is a directory (name the file in it)"
    )


def test_read_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b'[policy]\n# caf\xe9\ndefault = "pass"\n')
    with pytest.raises(ConfigError) as caught:
        config.read(path)
    assert str(caught.value) == f"{path}:2:6: the policy is not UTF-8 (save it as UTF-8)"


def test_read_path_with_a_nul() -> None:
    with pytest.raises(ConfigError, match="the policy is not a path"):
        config.read("a\0b")


def test_read_file_with_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b'\xef\xbb\xbf[policy]\r\nrules = """\r\na dorp\r\n"""\r\n')
    with pytest.raises(ConfigError) as caught:
        config.read(path)
    assert str(caught.value) == f'{path}:3:3: unknown action "dorp" (did you mean "drop"?)'


def test_import_is_light() -> None:
    code = "import sys, xdpgw.config; print({'lark', 'numpy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_unsupported_features_are_told_and_no_error() -> None:
    policy = config.loads(
        """\
[policy]
fragments = "follow"
rules = '''
a reject tcp
b forward udp
c redirect eth0 icmp
d af_xdp t else drop gre
e limit 5/s
f pass established to port 1
g tx esp
'''
[ports.eth0]
queues = [0]
[af_xdp.t]
handler = "count"
[gateway]
coexist = true
""",
        file="p.toml",
    )
    assert [str(x) for x in resolve(policy).unsupported] == [
        "p.toml:4:1: action reject is not in this version (write drop)",
        "p.toml:5:1: action forward is not in this version (write pass: the host routes it)",
        "p.toml:6:1: action redirect is not in this version (write pass: the host routes it)",
        "p.toml:9:8: established is not in this version (take it out, or match flags ack)",
        "p.toml:17:11: coexist = true is not in this version (take it out)",
    ]


@given(st.text(alphabet="[]{}=\"'\n#.,aé 1\\", max_size=40) | st.text(max_size=40))
def test_any_text_reads_or_is_a_config_error(text: str) -> None:
    try:
        config.loads(text)
    except ConfigError as error:
        assert error.diagnostics
