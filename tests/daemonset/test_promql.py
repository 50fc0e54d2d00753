"""The reader of PromQL that other tests trust."""

from __future__ import annotations

import pytest

from tests.promql import asked, exported, metrics_of


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le, pod) (rate(a_bucket{job=~"x|y", pod!="b{"}[5m])) > 0.5', {"a_bucket"}),
        ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[5m])))", {"h_bucket"}),
        ("a / on (job, instance) group_left (name) quantile by (job) (0.5, b) and c unless d", {"a", "b", "c", "d"}),
        ("pod:times:p99_5m > 2 * (n:x or vector(0))", {"pod:times:p99_5m", "n:x"}),
        ('label_values({__name__=~"one|two"}, job)', {"one", "two", "job"}),
        ("1e3 * 5 > bool up", {"up"}),
    ],
)
def test_it_names_metrics_and_nothing_else(expression: str, names: set[str]) -> None:
    assert metrics_of(expression) == names


def test_what_is_exported_has_the_parts_of_histograms() -> None:
    names = exported()
    assert "sonde_pod_inter_chunk_seconds_bucket" in names
    assert "sonde_pod_inter_chunk_seconds" not in names
    assert "inference_objective_request_total" in names


def test_variables_are_filled_in() -> None:
    assert asked('rate(a{job=~"$job"}[$__rate_interval])', "4s") == 'rate(a{job=~".+"}[4s])'
