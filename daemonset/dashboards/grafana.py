"""Grafana's JSON, as far as these dashboards need it: variables, panels on a grid of 24 columns, their queries.

Knows the shape of the document; refuses to know any metric. In a query `$M` stands for the matchers of the chosen job
and instance, `$P` for these and the chosen pods, `$R` for the rate interval.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 39
WIDTH = 24
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

OTHERS = {
    "type": "dashboards",
    "title": "Sonde",
    "tags": ["sonde"],
    "asDropdown": True,
    "includeVars": True,
    "keepTime": True,
}

MATCHERS = 'job=~"$job", instance=~"$instance"'
POD_MATCHERS = f'{MATCHERS}, namespace=~"$namespace", pod=~"$pod"'

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]  # expression and legend
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice among a label's values."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    text: str
    found_by: str  # a metric whose job and instance are those to choose among
    rows: tuple[Row, ...]
    more: tuple[Variable, ...] = ()


def graph(title: str, text: str, unit: str, *queries: tuple[str, str], **more: Any) -> Panel:
    return Panel(title, text, unit, queries, **more)


def stat(title: str, text: str, unit: str, query: str, legend: str = "") -> Panel:
    return Panel(title, text, unit, ((query, legend),), "stat", 4)


def quantiles(metric: str, by: str = "", among: Sequence[float] = (0.5, 0.9, 0.99)) -> tuple[tuple[str, str], ...]:
    """A histogram's quantiles, of each value of a label or of all together; `metric` with its matchers in braces."""
    name, _, matchers = metric.partition("{")
    groups, legend = (f"le, {by}", f"{{{{{by.rpartition(' ')[2]}}}}} ") if by else ("le", "")
    rates = f"sum by ({groups}) (rate({name}_bucket{{{matchers}[$R]))"
    return tuple((f"histogram_quantile({q}, {rates})", f"{legend}p{q * 100:g}") for q in among)


def written(dashboard: Dashboard) -> str:
    return json.dumps(_document(dashboard), indent=2) + "\n"


def _document(dashboard: Dashboard) -> Json:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["sonde"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "annotations": {"list": []},
        "links": [OTHERS],
        "templating": {"list": list(_variables(dashboard))},
        "panels": list(_panels(dashboard.rows)),
    }


def _variables(dashboard: Dashboard) -> Iterable[Json]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "regex": "",
    }
    found = dashboard.found_by
    both = (Variable("job", f"label_values({found}, job)"), Variable("instance", _of_job(found)))
    for variable in (*both, *dashboard.more):
        yield _variable(variable)


def _of_job(found: str) -> str:
    opening = found.removesuffix("}") + ", " if found.endswith("}") else found + "{"
    return f'label_values({opening}job=~"$job"}}, instance)'


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": variable.query, "refId": f"Variable-{variable.name}"},
        "definition": variable.query,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _panels(rows: Iterable[Row]) -> Iterable[Json]:
    y, number = 0, 0
    for row in rows:
        number += 1
        yield _row(number, row.title, y)
        y, x, highest = y + 1, 0, 0
        for panel in row.panels:
            number += 1
            height = 4 if panel.kind == "stat" else HEIGHT
            if x + panel.width > WIDTH:
                x, y, highest = 0, y + highest, 0
            yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height})
            x, highest = x + panel.width, max(highest, height)
        y += highest


def _row(number: int, title: str, y: int) -> Json:
    place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, place: Mapping[str, int]) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": dict(place),
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": [_target(at, *query) for at, query in enumerate(panel.queries)],
    }


def _defaults(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        filled = 40 if panel.stacked else 0
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": filled, "stacking": stacking}
    return defaults


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        calculation = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": calculation, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _target(at: int, expression: str, legend: str) -> Json:
    query = expression.replace("$M", MATCHERS).replace("$P", POD_MATCHERS).replace("$R", "$__rate_interval")
    return {
        "refId": chr(ord("A") + at),
        "datasource": SOURCE,
        "expr": query,
        "legendFormat": legend or "__auto",
        "range": True,
        "editorMode": "code",
    }
