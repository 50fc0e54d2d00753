"""Which metrics a PromQL expression names, and what Grafana would ask for a panel's query."""

from __future__ import annotations

import re

from agent.exporting.exposition import Kind
from agent.exporting.metrics import FAMILIES as AGENT
from controller.exporting.metrics import FAMILIES as CONTROLLER

# made by Prometheus itself
ITS_OWN = {"up", "ALERTS"}

_WORDS = {
    "by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset", "inf",
    "nan",
}  # fmt: skip
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MATCHERS = re.compile(r"\{[^{}]*\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])")
_BY_NAME = re.compile(r'__name__=~"([^"]*)"')


def exported() -> set[str]:
    """Every name of a sample that the daemons' pages may have."""
    names = set()
    for family in (*AGENT, *CONTROLLER):
        endings = ("_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",)
        names |= {family.name + ending for ending in endings}
    return names


def metrics_of(expression: str) -> set[str]:
    named = {name for names in _BY_NAME.findall(expression) for name in names.split("|")}
    for noise in (_STRING, _MATCHERS, _RANGE, _GROUPING):
        expression = noise.sub(" ", expression)
    return named | ({match[1] for match in _NAME.finditer(expression)} - _WORDS)


def asked(expression: str, rate_interval: str = "5m") -> str:
    """The expression with everything chosen, as Grafana fills in its variables."""
    filled = expression.replace("$__rate_interval", rate_interval)
    return re.sub(r"\$\w+", ".+", filled)
