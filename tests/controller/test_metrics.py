"""The controller's Prometheus page."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from controller.metrics import MODEL_LIMIT, Counts, TableCollector, Totals, snapshot
from controller.model import Request
from controller.table import Table
from tests.controller.known import frame, kernel, pod, table


def page(held: Table, now: float = 0.0, totals: Totals | None = None) -> str:
    registry = CollectorRegistry()
    registry.register(TableCollector(lambda: snapshot(held, totals or Totals(), now)))
    return generate_latest(registry).decode()


def read(text: str) -> dict[tuple[str, frozenset[Any]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    """Of the one sample with these labels among its own."""
    (found,) = {v for (sample, own), v in read(text).items() if sample == name and own >= frozenset(labels.items())}
    return found


def test_what_the_kernel_counts_of_an_endpoint_is_there_with_its_age() -> None:
    held = table(pod("a"))
    held.apply(frame({"a": kernel(in_flight=5, waiting=2)}, full=True), 0.0)
    text = page(held, now=0.5)
    assert value(text, "sonde_controller_endpoint_load", pod="a", source="kernel") == 5
    assert value(text, "sonde_controller_endpoint_waiting", pod="a") == 2
    assert value(text, "sonde_controller_signal_age_seconds", pod="a", source="kernel") == 0.5


def test_what_nobody_measured_has_no_sample_rather_than_zero() -> None:
    text = page(table(pod("a")))
    names = {name for name, _ in read(text)}
    assert "sonde_controller_endpoint_waiting" not in names
    assert value(text, "sonde_controller_endpoint_load", source="own") == 0


@pytest.mark.parametrize(
    "name",
    [
        "inference_pool_ready_pods",
        "inference_pool_average_queue_size",
        "inference_pool_average_kv_cache_utilization",
        "inference_pool_per_pod_queue_size",
    ],
)
def test_the_fields_names_are_kept(name: str) -> None:
    held = table(pod("a"))
    held.apply(frame({"a": kernel(in_flight=1)}, full=True), 0.0)
    assert name in page(held)


def test_series_go_with_their_endpoint() -> None:
    assert 'pod="a"' in page(table(pod("a")))
    assert 'pod="a"' not in page(table(pod("b")))


def test_picks_are_counted_by_reason_and_refusals_by_status() -> None:
    registry = CollectorRegistry()
    counts = Counts(registry)
    counts.picked(Request("/", "llama", None), 2e-5)
    counts.refused(503)
    text = generate_latest(registry).decode()
    assert value(text, "inference_objective_request_total", model_name="llama") == 1
    assert value(text, "inference_objective_request_error_total", error_code="503") == 1


def test_model_names_are_bounded_and_escaped() -> None:
    registry = CollectorRegistry()
    counts = Counts(registry)
    for number in range(MODEL_LIMIT + 50):
        counts.picked(Request("/", f'm{number}"\n\\', None), 1e-5)
    counts.picked(Request("/", "x" * 10_000, None), 1e-5)
    samples = [name for name, _ in read(generate_latest(registry).decode()) if name.endswith("_request_total")]
    assert len(samples) <= MODEL_LIMIT + 2
