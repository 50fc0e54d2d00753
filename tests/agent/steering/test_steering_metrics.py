"""What steering says of itself: the metrics page, /nodez and the table of `sonde-agent status`."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from agent.looking import status
from agent.steering.metrics import FAMILIES, steering_metrics
from agent.steering.state import json_of
from tests.agent.steering.objects import STATE


def test_the_page_has_one_line_a_pod_and_every_family() -> None:
    page = "".join(steering_metrics(STATE))
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert found["sonde_steer_connections_total", "ns", "llm", "stale"] == 2
    assert found["sonde_steer_endpoint_connections_total", "ns", "llm", "a"] == 7
    assert found["sonde_steer_endpoint_intended_connections_total", "ns", "llm", "a"] == 6
    assert found["sonde_steer_endpoint_share_ratio", "ns", "llm", "a"] == 0.75
    assert found["sonde_steer_endpoint_rtt_seconds", "ns", "llm", "a"] == 0.0002
    assert ("sonde_steer_endpoint_rtt_seconds", "ns", "llm", "b") not in found
    assert found["sonde_steer_source", "ns", "llm", "controller"] == 1
    assert found["sonde_steer_source", "ns", "llm", "equal"] == 0
    assert found["sonde_steer_table_age_seconds", "ns", "llm"] == 4
    assert {family.name for family in FAMILIES} == {name for name, *_ in found}


def test_nothing_is_on_the_page_where_nothing_steers() -> None:
    assert "".join(steering_metrics(None)) == ""


def test_people_see_it_in_a_table() -> None:
    lines = list(status._steering(json_of(STATE)))
    assert lines[0] == "steering: active; controllers: 2; cgroups of clients left alone: 4"
    first = lines[2].split()
    assert first[:6] == ["ns/llm", "direct", "10.96.0.10:80", "controller", "9", "3"]
    assert first[6:] == ["a", "50.0%", "6", "200", "us"]
