"""Rules and queries, judged by Prometheus's own tool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.exporting.exposition import Distribution, encoded, gauge, histogram, written, written_histogram
from daemonset.dashboards.__main__ import ALL
from daemonset.dashboards.__main__ import FOLDER as DASHBOARDS
from tests.agent.exporting.test_exposition import ODD
from tests.daemonset.test_alerts import ALERTS, FOLDER
from tests.prometheus.cases import CASES, Case, Series
from tests.prometheus.promtool import binary
from tests.promql import asked


def promtool(*arguments: object, text: bytes | None = None) -> str:
    done = subprocess.run([binary("promtool"), *map(str, arguments)], input=text, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def group(at: str, series: Series, expected: list[dict[str, Any]], case: Case) -> dict[str, Any]:
    labels = [label.partition("=")[0].strip() for label in case.for_whom.split(",")]
    question = f'sum by ({", ".join(labels)}) (ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": question, "eval_time": at, "exp_samples": expected}],
    }


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rule_files_are_valid(path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", path)


def test_every_alert_has_a_case() -> None:
    assert list(dict.fromkeys(case.alert for case in CASES)) == [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_must_and_not_when_it_must_not(case: Case, tmp_path: Path) -> None:
    fired = [{"labels": f"{{{case.for_whom}}}", "value": 1}]
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(path) for path in sorted(FOLDER.glob("*.yaml"))],
                "evaluation_interval": "1m",
                "tests": [group(case.at, case.fires, fired, case), group(case.at, case.silent, [], case)],
            }
        )
    )
    promtool("test", "rules", file)


@pytest.mark.parametrize("name", ALL)
def test_every_query_of_a_dashboard_is_promql(name: str, tmp_path: Path) -> None:
    dashboard = json.loads((DASHBOARDS / f"{name}.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    rules = [{"record": f"query:of:{number}", "expr": asked(query)} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", file)


def test_a_page_with_labels_of_any_content_is_one_that_prometheus_reads() -> None:
    texts = [*ODD, "nul\0", "half \ud83e"]
    page = written(gauge("sonde_odd", "Text with \\ and\nlines.", "a"), [((text,), 1) for text in texts])
    spread = Distribution([1, 2], 0.5)
    page += written_histogram(histogram("sonde_odd_seconds", "Text.", (0.1,), "a"), [((t,), spread) for t in texts])
    assert promtool("check", "metrics", text=encoded(page)) == ""
