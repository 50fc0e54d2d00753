"""Writes docs/metrics.md from the families that both daemons' pages are made of.

python -m docs.metrics > docs/metrics.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from agent.exporting.exposition import Family, bound_text
from agent.exporting.metrics import FAMILIES as AGENT
from controller.exporting.metrics import FAMILIES as CONTROLLER

HEAD = """\
# Metrics

Written by `make docs-metrics` from the code; a test keeps the two equal.

Units are in the names: seconds, bytes, `_total` for what only grows. A label holds a name, never an address. A series
goes when its pod, endpoint or model goes. What is not known has no sample; it is never shown as zero. After a restart
of the agent the pods' counters go on, because the kernel keeps them.

The bounds of the agent's histograms are the kernel's own (powers of two of a microsecond, and the middle between two of
them where answers of language models lie), so that no count is interpolated; hence 1.024 ms and not 1 ms.
"""
AGENT_HEAD = """\
## Agent

One page a node, `http://NODE:9432/metrics`.
"""
CONTROLLER_HEAD = """\
## Controller

`http://CONTROLLER:9090/metrics`. `inference_*` are the names of the Gateway API Inference Extension, so that its
dashboards and autoscaling guides work: `inference_objective_*` since v1, `inference_model_*` as in v0.3. Names of
models and objectives come from clients: the most requested ones have series of their own, the others are `other`.
"""


def page() -> str:
    return "\n".join(
        (
            HEAD,
            AGENT_HEAD,
            *_table(AGENT),
            "",
            CONTROLLER_HEAD,
            *_table(CONTROLLER),
            "",
            *_bounds((*AGENT, *CONTROLLER)),
        )
    )


def _table(families: Iterable[Family]) -> Iterable[str]:
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.help.replace('|', chr(92) + '|')} |"


def _bounds(families: Iterable[Family]) -> Iterable[str]:
    by_bounds: dict[tuple[float, ...], list[str]] = {}
    for family in families:
        if family.bounds:
            by_bounds.setdefault(family.bounds, []).append(f"`{family.name}`")
    yield "## Bounds of the histograms"
    for bounds, names in by_bounds.items():
        yield f"\n{', '.join(names)}: {' '.join(map(bound_text, bounds))}"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
