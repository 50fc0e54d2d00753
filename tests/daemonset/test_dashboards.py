"""The dashboards: written from their Python, and right by the rules of grafana/dashboard-linter.

Each rule of its documentation has a test here of the same name, and none is excluded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from daemonset.dashboards.__main__ import ALL, FOLDER, pages
from tests.promql import exported, metrics_of

# units used here, all of them in Grafana's list
UNITS = {"none", "s", "bytes", "percentunit", "watt", "reqps", "ops", "cps", "pps", "Bps"}
GRAPHS = ("timeseries", "stat")

Json = dict[str, Any]
DASHBOARDS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in ALL}


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, Json, Json]]:
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", panel, target


every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
every_panel = pytest.mark.parametrize(
    "panel",
    [panel for dashboard in DASHBOARDS.values() for panel in panels(dashboard)],
    ids=[f"{name}: {panel['title']}" for name, dashboard in DASHBOARDS.items() for panel in panels(dashboard)],
)
every_query = pytest.mark.parametrize(
    "query", [target["expr"] for _, _, target in targets()], ids=[f"{where} {t['refId']}" for where, _, t in targets()]
)


def test_the_files_are_what_make_dashboards_writes() -> None:
    assert {path: path.read_text() for path in pages()} == pages(), "run 'make dashboards' and commit the result"
    assert {path.name for path in FOLDER.glob("*.json")} == {path.name for path in pages()}


@every_dashboard
def test_a_dashboard_has_a_name_that_stays_and_a_schema_grafana_knows(dashboard: Json) -> None:
    assert re.fullmatch(r"sonde-[a-z]+", dashboard["uid"])
    assert 39 <= dashboard["schemaVersion"] <= 41
    assert dashboard["description"]
    assert dashboard["refresh"]
    assert dashboard["time"] == {"from": "now-1h", "to": "now"}
    assert "__inputs" not in dashboard


@every_dashboard
def test_uneditable_dashboard(dashboard: Json) -> None:
    assert dashboard["editable"] is False


@every_dashboard
def test_template_datasource_rule(dashboard: Json) -> None:
    (source,) = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
    assert (source["name"], source["label"], source["query"]) == ("datasource", "Data source", "prometheus")


@every_dashboard
@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_rule_and_template_instance_rule(dashboard: Json, name: str) -> None:
    (variable,) = [variable for variable in dashboard["templating"]["list"] if variable["name"] == name]
    assert variable["type"] == "query"
    assert variable["datasource"]["uid"] == "${datasource}"
    assert variable["label"] == name.title()
    assert variable["multi"]
    assert variable["allValue"] == ".+"


@every_dashboard
def test_template_label_promql_rule_and_template_on_time_change_reload_rule(dashboard: Json) -> None:
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        assert variable["refresh"] == 2
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert match
        assert match[2] == variable["name"]
        assert metrics_of(match[1]) <= exported()


@every_dashboard
def test_no_variable_is_unused_and_none_is_missing(dashboard: Json) -> None:
    text = json.dumps(dashboard["panels"])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}
    assert used == {variable["name"] for variable in dashboard["templating"]["list"]}


@every_panel
def test_panel_datasource_rule(panel: Json) -> None:
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


@every_panel
def test_panel_title_description_rule(panel: Json) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert len(panel["description"]) > 10


@every_panel
def test_panel_units_rule(panel: Json) -> None:
    assert panel["type"] in GRAPHS
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@every_panel
def test_panel_no_targets_rule(panel: Json) -> None:
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@every_panel
def test_a_panel_of_several_lines_says_which_is_which(panel: Json) -> None:
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"]
        assert all(target["legendFormat"] not in ("", "__auto") for target in panel["targets"])
        for target in panel["targets"]:
            grouped = {
                label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")
            }
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert not grouped or shown <= grouped | {"instance"}


@every_query
def test_target_rate_interval_rule(query: str) -> None:
    assert re.findall(r"\[([^\]]*)\]", query) == ["$__rate_interval"] * query.count("[")


@every_query
def test_target_job_rule_and_target_instance_rule(query: str) -> None:
    selectors = re.findall(r"\w+\{([^}]*)\}", query)
    assert selectors
    assert len(selectors) == len([name for name in re.findall(r"[\w:]+", query) if name in metrics_of(query)])
    assert all('job=~"$job"' in matchers and 'instance=~"$instance"' in matchers for matchers in selectors)


@every_query
def test_target_counter_agg_rule(query: str) -> None:
    counters = re.findall(r"\w+_(?:total|bucket|sum|count)\{[^}]*\}", query)
    rates = re.findall(r"(?:rate|increase)\((\w+\{[^}]*\})\[", query)
    assert counters == rates


@every_query
def test_every_metric_is_exported(query: str) -> None:
    assert metrics_of(query)
    assert metrics_of(query) <= exported()


@every_dashboard
def test_panels_neither_overlap_nor_leave_the_grid(dashboard: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
