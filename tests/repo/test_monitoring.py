"""The dashboard, the alert rules and the page of the metrics fit what is told to Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.snapshots import moment
from xdpgw.metrics import page

ROOT = Path(__file__).resolve().parents[2]
PROMTOOL = shutil.which("promtool") or str(ROOT / "build/prometheus/usr/bin/promtool")
"""`make test` fetches it."""


def names(text: str) -> set[str]:
    """The names of the metrics in a scrape, of which some may have no sample."""
    return set(re.findall(r"^# HELP (\S+)", text, re.M))


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_promtool_finds_no_fault(accept: str) -> None:
    content_type, text = page(lambda: moment(7), accept)
    assert content_type.startswith(accept)
    if accept == "text/plain":
        check = [PROMTOOL, "check", "metrics"]
        done = subprocess.run(check, input=text, capture_output=True, check=False)
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")
    else:
        assert text.endswith(b"# EOF\n")


def test_promtool_finds_no_fault_with_the_alert_rules() -> None:
    check = [PROMTOOL, "check", "rules", ROOT / "docs/prometheus/alerts.yml"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SUCCESS: \d+ rules found", done.stdout)


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """promtool runs the rules over series that say what happened."""
    series = {
        'xdpgw_build_info{instance="gw"}': "1x20",
        'xdpgw_in_force{instance="gw"}': "1x20",
        'xdpgw_in_charge{instance="gw"}': "1x10 0x10",
        'xdpgw_packets_total{instance="gw",port="eth0",verdict="drop",reason="error"}': "0x13 1x6",
        'xdpgw_target_served{instance="gw",target="tap"}': "1x20",
        'xdpgw_log_events_total{instance="gw",state="lost"}': "7x20",
    }
    wanted = {
        9: {},
        16: {"XdpgwOrphaned": {}, "XdpgwError": {"port": "eth0", "verdict": "drop"}},
    }
    severity = {"XdpgwOrphaned": "warning", "XdpgwError": "critical"}
    alerts = ("XdpgwSilent", "XdpgwNoFilter", "XdpgwOrphaned", "XdpgwError", "XdpgwLogLost",
              "XdpgwTargetNotServed")  # fmt: skip
    tests = {
        "rule_files": [str(ROOT / "docs/prometheus/alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": f"{minute}m",
                        "alertname": name,
                        "exp_alerts": [
                            {
                                "exp_labels": {
                                    "instance": "gw",
                                    "severity": severity[name],
                                    **({"reason": "error"} if name == "XdpgwError" else {}),
                                    **fires[name],
                                },
                                "exp_annotations": annotations(name),
                            }
                        ]
                        if name in fires
                        else [],
                    }
                    for minute, fires in wanted.items()
                    for name in alerts
                ],
            }
        ],
    }
    path = tmp_path / "alerts_test.yml"
    path.write_text(json.dumps(tests))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def annotations(alert: str) -> dict[str, str]:
    """What the rules say of an alert of the machine gw and the port eth0."""
    text = (ROOT / "docs/prometheus/alerts.yml").read_text()
    body = text[text.index(f"alert: {alert}\n") :]
    found = dict(re.findall(r"(summary|description): \"?(.*?)\"?$", body, re.M)[:2])
    for name, value in (("instance", "gw"), ("port", "eth0")):
        found = {k: v.replace(f"{{{{ $labels.{name} }}}}", value) for k, v in found.items()}
    return found


@pytest.mark.parametrize("path", ["docs/grafana/xdpgw.json", "docs/prometheus/alerts.yml"])
def test_every_metric_that_is_asked_for_is_told(path: str) -> None:
    text = (ROOT / path).read_text()
    asked = set(re.findall(r"\bxdpgw_[a-z_]+", text))
    assert len(asked) > 5
    assert asked <= names(page(lambda: moment(7))[1].decode())


def test_every_metric_is_on_its_page_and_no_other() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    assert set(re.findall(r"^\| `(xdpgw_\w+)", text, re.M)) == names(
        page(lambda: moment(7))[1].decode()
    )


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads((ROOT / "docs/grafana/xdpgw.json").read_text())
    assert board["title"] == "xdpgw"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 10
    places = [tuple(panel["gridPos"][x] for x in "xywh") for panel in board["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(cells) == len(set(cells))  # no panel lies on another
    variables = {x["name"] for x in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) - {"__rate_interval"}
    assert used == variables
