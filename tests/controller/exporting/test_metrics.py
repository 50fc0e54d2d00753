"""The controller's Prometheus page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.endpoints.table import Table
from controller.exporting.counts import MODEL_LIMIT, Counts
from controller.exporting.metrics import FAMILIES, ControllerPage
from controller.exporting.snapshot import Totals, snapshot
from controller.model import AgentGone, EngineScraped, FrameReceived, Reason, Resolved
from tests.controller.known import asked, engine, frame, kernel, pod, report, table


def page(
    held: Table,
    now: float = 0.0,
    totals: Totals | None = None,
    counts: Counts | None = None,
    weights: Sequence[float] | None = None,
) -> str:
    view = (counts or Counts()).view()
    return "".join(ControllerPage(lambda: snapshot(held, totals or Totals(), view, now, weights)).page())


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
    text = page(held, now=0.125)
    assert value(text, "sonde_controller_endpoint_load", pod="a", source="kernel") == 5
    assert value(text, "sonde_controller_endpoint_waiting", pod="a") == 2
    assert value(text, "sonde_controller_signal_age_seconds", pod="a", source="kernel") == 0.125


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


def test_weights_are_there_where_they_were_told() -> None:
    held = table(pod("a"), pod("b"))
    text = page(held, weights=[1.0, 0.0])
    assert value(text, "sonde_controller_endpoint_weight", pod="b") == 0.0
    assert "sonde_controller_endpoint_weight{" not in page(held)


def test_series_go_with_their_endpoint() -> None:
    assert 'pod="a"' in page(table(pod("a")))
    assert 'pod="a"' not in page(table(pod("b")))


def test_every_family_that_is_documented_is_on_the_page_and_no_other() -> None:
    held = table(pod("a"))
    held.apply(frame({"a": kernel(1, usual_ttft_s=0.1, usual_gap_s=0.01)}, full=True), 0.0)
    held.apply(EngineScraped("10.0.0.1:8000", engine(1, 0)), 0.0)
    held.rows[0].picks[Reason.ONLY] = 1
    counts = Counts()
    series = counts.picked(asked("m"), 1e-5, size_bytes=10)
    rewritten = Resolved("m", "t", None, 0, "", rewritten_by="r")
    counts.picked(replace(asked("m"), resolved=rewritten), 1e-5)
    counts.ended(series, 1.0)
    counts.refused(503, series)
    counts.declined("saturated", "batch", -1)
    found = {family.name: family for family in text_string_to_metric_families(page(held, counts=counts, weights=[0.5]))}
    assert found.keys() == {family.name.removesuffix("_total") for family in FAMILIES}
    assert all(family.samples for family in found.values())
    assert all(found[family.name.removesuffix("_total")].documentation == family.help for family in FAMILIES)


def test_requests_are_counted_under_the_names_of_both_generations_of_the_field() -> None:
    counts = Counts()
    counts.ended(counts.picked(asked("llama", None, 1), 2e-5, size_bytes=100), 0.3)
    counts.ended(counts.picked(asked("llama", None, 2), 2e-5, size_bytes=200), 0.3)
    counts.refused(503)
    text = page(table(), counts=counts)
    assert value(text, "inference_objective_request_total", model_name="llama", priority="1") == 1
    assert value(text, "inference_model_request_total", model_name="llama") == 2
    assert value(text, "inference_objective_request_error_total", error_code="503") == 1
    assert value(text, "inference_model_request_error_total", error_code="503") == 1
    assert value(text, "inference_model_request_sizes_sum", model_name="llama") == 300
    assert value(text, "inference_objective_request_sizes_sum", model_name="llama", priority="2") == 200
    assert value(text, "inference_model_running_requests", model_name="llama") == 0
    name = "inference_model_request_duration_seconds_bucket"
    assert [value(text, name, model_name="llama", le=le) for le in ("0.2", "0.4", "+Inf")] == [0, 2, 2]


def test_where_nobody_tells_the_end_of_answers_neither_running_nor_duration_is_shown() -> None:
    counts = Counts()
    counts.ended(counts.picked(asked("followed"), 1e-5), 0.3)
    counts.ended(counts.picked(asked("not"), 1e-5), None)
    text = page(table(), counts=counts)
    for name in ("inference_objective_running_requests", "inference_objective_request_duration_seconds_count"):
        shown = {dict(labels)["model_name"] for sample, labels in read(text) if sample == name}
        assert shown == {"followed"}


def test_model_names_of_any_kind_and_number_make_a_valid_page_of_bounded_size() -> None:
    counts = Counts()
    for number in range(20 * MODEL_LIMIT):
        counts.picked(asked(f'm{number}"\n\\{{%d'), 1e-5, size_bytes=1)
    counts.picked(asked("x" * 10_000), 1e-5)
    text = page(table(), counts=counts)
    requests = {labels: v for (name, labels), v in read(text).items() if name == "inference_objective_request_total"}
    assert len(requests) <= MODEL_LIMIT + 1
    assert sum(requests.values()) == 20 * MODEL_LIMIT + 1
    assert len(text) < 2_000_000


def test_an_agent_that_went_silent_has_an_age_and_is_not_alive() -> None:
    held = table(pod("a"))
    held.apply(frame({"a": kernel(1)}, full=True), 0.0)
    assert value(page(held, now=1.0), "sonde_controller_agent_alive", node="node-1") == 1
    held.apply(AgentGone("node-1"), 1.0)
    text = page(held, now=60.0)
    assert value(text, "sonde_controller_agent_alive", node="node-1") == 0
    assert value(text, "sonde_controller_agent_frame_age_seconds", node="node-1") == 60
    assert value(text, "sonde_controller_signal_age_seconds", pod="a", source="kernel") == 60
    assert "sonde_controller_endpoint_waiting{" not in text


FULL = [(5, 0.4, 1.0), (0, 0.4, 0.5), (None, 0.8, 1.0), (10, None, 2.0)]


@pytest.mark.parametrize(("waiting", "kv_cache", "full"), FULL)
def test_a_pool_is_as_full_as_the_scarcer_of_queue_and_cache(waiting: Any, kv_cache: Any, full: float) -> None:
    held = table(pod("a"))
    signal = replace(engine(1, waiting), kv_cache_usage=kv_cache)
    held.apply(EngineScraped("10.0.0.1:8000", signal), 0.0)
    text = page(held)
    assert value(text, "inference_extension_flow_control_pool_saturation", inference_pool="p") == pytest.approx(full)


def test_a_pool_nobody_measures_has_no_saturation() -> None:
    assert "pool_saturation{" not in page(table(pod("a")))


def test_the_page_of_an_idle_engine_is_as_old_as_the_kernels_word() -> None:
    held = table(pod("a"))
    for at, in_flight in ((10.0, 0), (10.5, 1)):
        signal = kernel(in_flight, at=at, started=in_flight)
        held.apply(FrameReceived("node-1", True, [report("a", signal, engine(0, 0, at=1.0))], at), at)
        text = page(held, now=at + 0.125)
        assert value(text, "sonde_controller_signal_age_seconds", pod="a", source="engine") == 0.125
    text = page(held, now=12.0)
    assert value(text, "sonde_controller_signal_age_seconds", pod="a", source="engine") == 1.5
