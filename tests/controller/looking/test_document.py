"""What a table looks like as a document."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import msgspec
import pytest

from controller.choosing.lastpicks import LastPicks
from controller.choosing.pick import LOST_STEP, STALLED_STEP, TERMINATING_STEP, UNREADY_STEP
from controller.choosing.picker import Picker
from controller.endpoints.row import NODE_FORGOTTEN_S
from controller.endpoints.table import Table
from controller.looking.document import DEVICE_LIMIT_S, LINE_POINTS, Document, Summary, document, longer, split
from controller.model import AgentGone, ClusterChanged, Device, FrameReceived, Request
from tests.controller.known import cluster, engine, frame, kernel, pod, report, table

SUMMARY = Summary("default", "p", True, "sonde", 0, 0, 0)


def seen(made: Table, now: float, last: LastPicks | None = None) -> Document:
    return document(made, made.ranks(now), last or LastPicks(), SUMMARY, now)


def test_a_measured_pod_shows_what_waits_and_what_streams() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(5, waiting=2, usual_ttft_s=0.25, usual_gap_s=0.01)}, full=True), 0.0)
    (line,) = seen(made, 0.1).pods
    assert (line.in_flight, line.waiting, line.streaming) == (5, 2, 3)
    assert (line.node, line.source, line.rank, line.against) == ("node-1", "kernel", 5, ())
    assert (line.ttft_s, line.gap_s, line.stale_at_s) == (0.25, 0.01, None)


def test_where_only_the_engine_tells_its_numbers_are_shown() -> None:
    made = table(pod("a"))
    made.apply(FrameReceived("node-1", True, [report("a", None, engine(3, 4))]), 0.0)
    (line,) = seen(made, 0.1).pods
    assert (line.in_flight, line.waiting, line.streaming, line.source) == (7, 4, 3, "engine")


def test_what_nobody_measured_is_unknown_and_not_stale() -> None:
    (line,) = seen(table(pod("a")), 0.0).pods
    assert (line.in_flight, line.waiting, line.streaming, line.stale_at_s) == (None, None, None, None)
    assert (line.source, line.ttft_s) == ("own", None)


@pytest.mark.parametrize("way", ["gone", "silent"])
def test_of_an_agent_that_went_silent_the_age_is_left_and_no_zero(way: str) -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(0, at=1.0, usual_ttft_s=0.2)}, full=True), 1.0)
    now = 1.0 + NODE_FORGOTTEN_S + 10
    if way == "gone":
        made.apply(AgentGone("node-1"), 1.1)
        now = 1.1 + NODE_FORGOTTEN_S + 10
    shown = seen(made, now)
    (line,) = shown.pods
    assert (line.in_flight, line.waiting, line.streaming, line.ttft_s) == (None, None, None, None)
    assert line.stale_at_s == 1.0
    (agent,) = shown.nodes
    assert (agent.name, agent.live, agent.heard_age_s) == ("node-1", False, round(now - 1.0, 1))


def test_a_count_too_old_to_pick_by_is_still_shown_for_a_while() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(2, at=1.0)}, full=True), 1.0)
    (line,) = seen(made, 2.0).pods
    assert (line.in_flight, line.stale_at_s, line.source) == (2, None, "own")
    (line,) = seen(made, 4.0).pods
    assert (line.in_flight, line.stale_at_s) == (None, 1.0)


def test_the_age_survives_a_change_of_the_cluster_that_makes_the_table_forget_the_node() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1, at=1.0)}, full=True), 1.0)
    made.apply(AgentGone("node-1"), 1.0)
    made.apply(ClusterChanged(cluster(pod("a"))), 60.0)
    shown = seen(made, 61.0)
    assert shown.nodes[0].heard_age_s == 60.0
    assert shown.pods[0].stale_at_s == 1.0


def test_a_node_whose_agent_was_never_heard_has_no_age() -> None:
    (agent,) = seen(table(pod("a", node="n9")), 5.0).nodes
    assert (agent.name, agent.live, agent.heard_age_s) == ("n9", False, None)


def test_a_stalled_pod_says_since_when_and_that_it_counts_against_it() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(2, progress_at_s=0.0)}, full=True), 0.0)
    made.apply(frame({}, at=0.4), 0.4)
    (line,) = seen(made, 0.5).pods
    assert (line.state, line.silent_at_s, line.rank, line.against) == ("stalled", 0.0, 2, ("stalled",))


@pytest.mark.parametrize(
    ("rank", "apart"),
    [
        (3.0, (3.0, ())),
        (STALLED_STEP + 2, (2.0, ("stalled",))),
        (UNREADY_STEP, (0.0, ("unready",))),
        (LOST_STEP + 1, (1.0, ("lost device",))),
        (TERMINATING_STEP + UNREADY_STEP + STALLED_STEP + 7, (7.0, ("terminating", "unready", "stalled"))),
    ],
)
def test_a_rank_is_taken_apart(rank: float, apart: tuple[float, tuple[str, ...]]) -> None:
    assert split(rank) == apart


def test_a_lost_accelerator_is_named() -> None:
    made = table(pod("a"))
    made.apply(FrameReceived("node-1", True, [report("a", kernel(1), fault="GPU-1: Xid 79")]), 0.0)
    (line,) = seen(made, 0.1).pods
    assert (line.fault, line.rank, line.against) == ("GPU-1: Xid 79", 1, ("lost device",))


def test_accelerators_keep_their_numbers_until_these_are_too_old() -> None:
    made = table(pod("a"))
    gpu = Device("GPU-1", "nvidia.com/gpu", "gpu", utilization=0.735, memory_used_bytes=5, memory_total_bytes=9)
    devices = (replace(gpu, at_s=1), replace(gpu, id="GPU-2", at_s=None))
    made.apply(FrameReceived("node-1", True, [report("a", kernel(0), devices=devices)]), 2.0)
    (line,) = seen(made, 2.0).pods
    first, second = line.devices
    assert (first.id, first.resource, first.kind) == ("GPU-1", "nvidia.com/gpu", "gpu")
    assert (first.utilization, first.memory_used_bytes, first.memory_total_bytes, first.at_s) == (0.735, 5, 9, 1)
    assert (second.utilization, second.at_s) == (0.735, None)
    (line,) = seen(made, DEVICE_LIMIT_S + 1.5).pods
    old, unaged = line.devices
    assert unaged.utilization == 0.735
    assert (old.utilization, old.memory_used_bytes, old.memory_total_bytes, old.at_s) == (None, None, 9, 1)
    made.apply(FrameReceived("node-1", True, []), 30.0)
    assert seen(made, 30.0).pods[0].devices == ()


def test_picks_show_where_they_went_and_what_the_others_would_have_cost() -> None:
    made = table(pod("a"), pod("b"), pod("c", ready=False))
    made.apply(frame({"a": kernel(4, waiting=4), "b": kernel(1)}, full=True), 0.0)
    picker = Picker(made, rng=Random(1))
    picker.pick(Request("/", "m", None), 0.2)
    (pick,) = seen(made, 0.21, picker.last).picks
    assert (pick.pod, pick.reason) == ("b", "cheapest")
    assert [(other.pod, other.against) for other in pick.alternatives] == [("a", ()), ("c", ("unready",))]
    assert 0.0 < pick.rank < pick.alternatives[0].rank < 1.0


def test_whatever_pods_are_called_the_document_is_json() -> None:
    name = 'x"\n<script>\u2028\x00' + "y" * 10_000
    made = table(replace(pod("a"), name=name))
    back = msgspec.json.decode(msgspec.json.encode(seen(made, 0.0)))
    assert back["pods"][0]["pod"] == name


def test_a_line_holds_the_last_points_and_ends_with_its_pod() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(0, usual_ttft_s=0.5)}, full=True), 0.0)
    lines = {}
    for _ in range(LINE_POINTS + 5):
        lines = longer(lines, seen(made, 0.0).pods)
    assert lines["default/a:8000"].ttft_s == (0.5,) * LINE_POINTS
    assert lines["default/b:8000"].ttft_s == (None,) * LINE_POINTS
    made.apply(ClusterChanged(cluster(pod("a"))), 1.0)
    assert list(longer(lines, seen(made, 1.0).pods)) == ["default/a:8000"]
