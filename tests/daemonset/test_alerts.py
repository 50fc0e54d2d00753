"""The rule files, without Prometheus: each alert can be found in the runbooks and asks for what is exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.promql import ITS_OWN, exported, metrics_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "daemonset" / "alerts"


def rules() -> list[dict[str, Any]]:
    groups = [group for path in sorted(FOLDER.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}

every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]


def test_every_section_says_what_it_means_where_to_look_and_what_to_do() -> None:
    for section in (ROOT / "docs" / "runbooks.md").read_text().split("\n## ")[1:]:
        assert re.findall(r"^\*\*(\w+)\*\*: .+", section, re.MULTILINE) == ["Means", "Look", "Do"], section


@every_alert
def test_an_alert_says_who_what_and_how_bad(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Sonde[A-Z]\w+", alert["alert"])
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"
    assert "for" in alert


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_metric_is_exported_or_recorded(rule: dict[str, Any]) -> None:
    assert metrics_of(rule["expr"]) <= exported() | ITS_OWN | RECORDED.keys()


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_recorded_is_named_by_level_metric_and_operation(name: str) -> None:
    assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", name)
