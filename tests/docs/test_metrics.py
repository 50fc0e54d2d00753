"""docs/metrics.md says what the daemons export, in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.exporting.exposition import Family, Kind
from agent.exporting.metrics import FAMILIES as AGENT
from controller.exporting.metrics import FAMILIES as CONTROLLER
from docs import metrics

ALL = tuple(dict.fromkeys((*AGENT, *CONTROLLER)))  # what a process costs is on both


def test_the_page_is_what_make_docs_metrics_writes() -> None:
    written = Path(metrics.__file__).with_suffix(".md").read_text()
    assert written == metrics.page(), "run 'make docs-metrics' and commit the result"


@pytest.mark.parametrize("page", [AGENT, CONTROLLER], ids=["agent", "controller"])
def test_no_name_is_there_twice(page: tuple[Family, ...]) -> None:
    names = [family.name for family in page]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_newcomer_can_read_it(family: Family) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert not family.help[0].islower()
    assert family.help.endswith(".")
    assert len(family.help) > 20
    assert not {"ip", "address", "le"} & set(family.labels)
    assert list(family.bounds) == sorted(set(family.bounds))
    assert bool(family.bounds) == (family.kind is Kind.HISTOGRAM)


@pytest.mark.parametrize("family", [family for family in ALL if family.bounds], ids=lambda family: family.name)
def test_bounds_of_times_of_answers_reach_from_a_millisecond_to_two_minutes(family: Family) -> None:
    if family.name.endswith("_sizes") or "scheduler" in family.name:
        return
    assert family.bounds[0] <= 0.0011
    assert family.bounds[-1] >= 120
    steps = [high / low for low, high in zip(family.bounds, family.bounds[1:], strict=False)]
    looked_at = ("first_token", "inter_chunk", "duration")
    assert max(steps) <= (2.5 if any(word in family.name for word in looked_at) else 4)
