"""A small matrix as a check that no change of the rule loses what it is for: ratios in one run, the same everywhere.

Limits leave about a quarter of what was measured; how much there really is says `make bench-policy`.
"""

from __future__ import annotations

import pytest

from bench.policy import runs
from bench.policy.scenarios import Cell, matrix

SECONDS = 30.0
WARM_S = 8.0
SEED = 5

CELLS = {cell.key: cell for cell in matrix()}
found: dict[tuple[str, str], runs.Plain] = {}


def value(cell: Cell, name: str, field: str) -> float:
    if (cell.key, name) not in found:
        found[cell.key, name] = runs.run(cell, name, SEED, SECONDS, WARM_S)
    return float(str(found[cell.key, name][field]))


def ratio(cell: str, peer: str, field: str) -> float:
    return value(CELLS[cell], peer, field) / value(CELLS[cell], "sonde", field)


@pytest.mark.parametrize(
    ("cell", "peer", "field", "least"),
    [
        ("B1/80", "llm-d", "ttft_p99_s", 1.8),
        ("B1/80", "least-request", "ttft_p99_s", 1.2),
        ("B3/75", "least-request", "ttft_p99_s", 1.6),
        ("B3/75", "llm-d", "ttft_p99_s", 2.0),
        ("B4/x2", "least-request", "tpot_p99_s", 1.2),
        ("B11/400ms", "predicted-latency", "ttft_p99_s", 3.0),
        ("B14", "least-request", "ttft_p99_s", 1.8),
        ("B14", "predicted-latency", "tpot_p99_s", 1.2),
    ],
)
def test_the_rule_stays_ahead(cell, peer, field, least):
    assert ratio(cell, peer, field) >= least


def test_on_equal_pods_it_does_not_lose_to_a_perfect_predictor():
    assert ratio("B1/80", "predicted-latency", "ttft_p99_s") >= 0.8


def test_with_dead_agents_it_is_no_worse_than_least_request():
    assert ratio("B15/dead", "least-request", "ttft_p99_s") >= 1 / 1.05
    assert value(CELLS["B15/dead"], "sonde", "good") >= value(CELLS["B15/dead"], "least-request", "good") - 0.05


def test_without_a_kernel_it_does_on_mixed_pods_what_least_request_does():
    cell = CELLS["B3/75"]
    alone, peer = (value(cell, name, "good") for name in ("sonde, no kernel", "least-request"))
    assert alone >= peer - 0.02
