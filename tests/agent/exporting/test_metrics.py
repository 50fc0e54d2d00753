"""The agent's Prometheus page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.devices.health import State
from agent.devices.names import Device, Kind
from agent.exporting.metrics import FAMILIES, AgentPage
from agent.exporting.snapshot import AgentState, PodDevices, PodState, SlotState, Snapshot
from agent.kernel import layout
from agent.kernel.programs import Runs
from agent.placing.queues import Queue, Sockets
from agent.placing.slots import Owner
from agent.signals import HISTOGRAMS
from agent.steering.state import SteeringState
from tests.agent.rows import MS, S, row
from tests.agent.steering.objects import STATE

AGENT = AgentState(
    drops={"not_http": 3},
    owners_used=2,
    owners_capacity=16,
    slots_used=1,
    slots_retired=0,
    slots_capacity=8,
    endpoints={"kernel": 1},
    rows_sampled=5,
    watchers=1,
    pages_read=2,
    pages_failed=0,
    cpu_s=1.5,
    rss_bytes=4096,
)
LABELS = {"namespace": "ns", "pod": "a"}


def slot(number: int = 0, samples_us: Mapping[str, list[int]] | None = None, **fields: int) -> SlotState:
    histograms = {name: np.zeros(layout.BUCKETS, np.uint32) for name in HISTOGRAMS}
    upper = np.array([layout.bucket_upper_us(index) for index in range(layout.BUCKETS)])
    for name, times in (samples_us or {}).items():
        for time_us in times:
            histograms[name][np.searchsorted(upper, time_us, side="right")] += 1
    return SlotState(Owner(number, 1), row(**fields), histograms)


GPU = Device("GPU-1", "nvidia.com/gpu", Kind.GPU, "2")
LOST = State(0.5, 10, 20, 300.0, 61.0, ("power cap",), "Xid 79")


def page(*slots: SlotState, agent: AgentState = AGENT, steering: SteeringState | None = None) -> str:
    pods = [PodState("ns", "a", slots)] if slots else []
    devices = [PodDevices("ns", "a", ((GPU, LOST), (replace(GPU, id="GPU-2"), State())))]
    return render(AgentPage(lambda: Snapshot(10 * S, pods, agent, devices, steering)))


def render(made: AgentPage) -> str:
    return "".join(made.page())


def read(text: str) -> dict[tuple[str, frozenset[Any]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return read(text)[name, frozenset((LABELS | labels).items())]


PROMISED = [
    "sonde_pod_connections_open",
    "sonde_pod_connections_opened_total",
    "sonde_pod_requests_in_flight",
    "sonde_pod_requests_started_total",
    "sonde_pod_requests_finished_total",
    "sonde_pod_response_header_seconds_bucket",
    "sonde_pod_time_to_first_token_seconds_bucket",
    "sonde_pod_inter_chunk_seconds_bucket",
    "sonde_pod_request_duration_seconds_bucket",
    "sonde_pod_stalled_seconds",
    "sonde_pod_tcp_retransmits_total",
    "sonde_pod_tcp_resets_total",
    "sonde_pod_tcp_rtt_seconds",
    "sonde_pod_accept_queue_overflows_total",
]


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_series_is_there_with_namespace_and_pod(name: str) -> None:
    found = [dict(labels) for (sample, labels) in read(page(slot(srtt_us=5))) if sample == name]
    assert found
    assert all(labels.items() >= LABELS.items() for labels in found)


def test_the_ports_of_a_pod_are_summed() -> None:
    text = page(slot(0, in_flight=2, started=5), slot(1, in_flight=1, started=7))
    assert value(text, "sonde_pod_requests_in_flight") == 3
    assert value(text, "sonde_pod_requests_started_total") == 12


def test_outcomes_are_told_apart() -> None:
    text = page(slot(completed=4, client_aborted=2, server_aborted=1))
    finished = {o: value(text, "sonde_pod_requests_finished_total", outcome=o) for o in ("complete", "client_abort")}
    assert finished == {"complete": 4, "client_abort": 2}
    assert value(text, "sonde_pod_requests_finished_total", outcome="server_abort") == 1


def test_histograms_are_cumulative_in_seconds() -> None:
    text = page(slot(samples_us={"ttft_hist": [500, 3_000, 3_000, 250_000]}, ttft_ns_sum=256_500_000))
    name = "sonde_pod_time_to_first_token_seconds"
    assert value(text, f"{name}_bucket", le="0.001024") == 1
    assert value(text, f"{name}_bucket", le="0.004096") == 3
    assert value(text, f"{name}_bucket", le="+Inf") == value(text, f"{name}_count") == 4
    assert value(text, f"{name}_sum") == pytest.approx(0.2565)


def test_stalled_is_the_time_since_the_last_byte_of_the_worst_port() -> None:
    text = page(slot(0, in_flight=1, last_byte_ns=10 * S - 20 * MS), slot(1, in_flight=1, last_byte_ns=7 * S))
    assert value(text, "sonde_pod_stalled_seconds") == 3
    assert value(page(slot(last_byte_ns=S)), "sonde_pod_stalled_seconds") == 0


def test_what_is_unknown_of_a_device_has_no_sample() -> None:
    text = page(slot())
    devices = {
        name: {dict(labels).get("device") for each, labels in read(text) if each == name} for name, _ in read(text)
    }
    assert devices["sonde_pod_device_info"] == {"GPU-1", "GPU-2"}
    assert devices["sonde_pod_device_healthy"] == devices["sonde_pod_device_utilization_ratio"] == {"GPU-1"}
    assert 'sonde_pod_device_healthy{namespace="ns",pod="a",device="GPU-1"} 0' in text


def test_series_go_with_their_pod() -> None:
    pods = [PodState("ns", "a", [slot(started=1)])]
    made = AgentPage(lambda: Snapshot(S, pods, AGENT))
    assert 'pod="a"' in render(made)
    pods.clear()
    assert 'pod="a"' not in render(made)


def test_overflows_never_fall() -> None:
    slots = [slot(syns=5, syn_acks=2)]
    made = AgentPage(lambda: Snapshot(S, [PodState("ns", "a", slots)], AGENT))
    assert value(render(made), "sonde_pod_accept_queue_overflows_total") == 3
    slots[0] = slot(syns=5, syn_acks=4)
    assert value(render(made), "sonde_pod_accept_queue_overflows_total") == 3


def test_names_that_need_escaping_make_a_valid_page() -> None:
    pods = [PodState("ns", 'a"\n\\', [slot(started=1)])]
    text = render(AgentPage(lambda: Snapshot(S, pods, AGENT)))
    assert any(dict(labels).get("pod") == 'a"\n\\' for _, labels in read(text))


def test_the_agent_tells_of_itself() -> None:
    found = {name: number for (name, labels), number in read(page()).items() if name.startswith("sonde_agent_")}
    assert found["sonde_agent_drops_total"] == 3
    assert found["sonde_agent_cpu_seconds_total"] == 1.5
    assert found["sonde_agent_resident_memory_bytes"] == 4096


def test_every_family_that_is_documented_is_on_the_page_and_no_other() -> None:
    agent = replace(AGENT, sample_age_s=0.1, kernel_share=0.01, programs={"ingress": Runs(1, 1)})
    listening = replace(slot(0, {key: [5000] for key in HISTOGRAMS}, srtt_us=5), sockets=Sockets(Queue(1, 128, 7)))
    found = {
        family.name: family for family in text_string_to_metric_families(page(listening, agent=agent, steering=STATE))
    }
    assert found.keys() == {family.name.removesuffix("_total") for family in FAMILIES}
    assert all(family.samples for family in found.values())
    assert all(found[family.name.removesuffix("_total")].documentation == family.help for family in FAMILIES)


def test_a_pod_without_slots_has_no_series() -> None:
    pods = [PodState("ns", "a", []), PodState("ns", "b", [slot(started=1)])]
    text = render(AgentPage(lambda: Snapshot(S, pods, AGENT)))
    assert 'pod="a"' not in text
    assert value(text, "sonde_pod_requests_started_total", pod="b") == 1


def test_histograms_stay_with_their_pod() -> None:
    pods = [
        PodState("ns", "a", [slot(0, {"gap_hist": [9_000]}), slot(1, {"gap_hist": [9_000, 70_000]})]),
        PodState("ns", "b", [slot(2, {"gap_hist": [20_000]})]),
    ]
    text = render(AgentPage(lambda: Snapshot(S, pods, AGENT)))
    name = "sonde_pod_inter_chunk_seconds_bucket"
    assert [value(text, name, pod="a", le=le) for le in ("0.008192", "0.012288", "0.065536", "+Inf")] == [0, 2, 2, 3]
    assert [value(text, name, pod="b", le=le) for le in ("0.016384", "0.024576", "+Inf")] == [0, 1, 1]


def test_accept_queues_of_a_pod_are_summed_and_absent_where_unknown() -> None:
    two = [replace(slot(n), sockets=Sockets(Queue(n + 1, 100, 5 * n))) for n in range(2)]
    found = read(page(*two))
    names = ("length", "limit", "longest")
    assert [found[f"sonde_pod_accept_queue_{name}", frozenset(LABELS.items())] for name in names] == [3, 200, 5]
    assert not any(name.startswith("sonde_pod_accept_queue_l") for name, _ in read(page(slot())))


def test_connections_that_never_spoke_are_open_too() -> None:
    silent = replace(
        slot(connections_opened=3, connections_closed=1, connections_adopted=1), sockets=Sockets(unheard=4)
    )
    assert read(page(silent))["sonde_pod_connections_open", frozenset(LABELS.items())] == 7


def test_causes_and_levels_are_told_apart() -> None:
    agent = replace(AGENT, measurement_level=2, shed=("http2", "calls"))
    found = read(page(slot(closed_by_client=1, reset_by_server=2, timed_out=3), agent=agent))
    closed = {dict(labels)["cause"]: n for (name, labels), n in found.items() if "connections_closed" in name}
    assert closed == {"client": 1, "server": 0, "client_reset": 0, "server_reset": 2, "timeout": 3}
    assert found["sonde_agent_measurement_level", frozenset()] == 2
    shed = {dict(labels)["what"]: n for (name, labels), n in found.items() if name == "sonde_agent_shed"}
    assert shed == {"http2": 1, "calls": 1, "turns": 0, "histograms": 0}


def test_a_histogram_that_most_pods_have_no_use_for_is_not_there_rather_than_empty() -> None:
    name = "sonde_pod_approximate_gap_seconds_count"
    assert name not in page(slot(started=1))
    assert value(page(slot(samples_us={"turn_gap_hist": [5000]})), name) == 1
