from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from agent.cluster.objects import Cluster
from controller.choosing.pick import STALLED_STEP, TERMINATING_STEP, UNREADY_STEP
from controller.choosing.picker import Picker
from controller.endpoints.health import State
from controller.endpoints.row import ENGINE_LIMIT_S
from controller.model import ClusterChanged, EngineScraped, FrameReceived, KernelSignal, Request, Source
from tests.controller.known import cluster, engine, frame, kernel, pod, report, table

ANY = Request("/v1/completions", "m", None)


def test_endpoints_are_every_port_of_every_pod_with_an_address() -> None:
    made = table(pod("a"), pod("b", ready=False), pod("d"), ports=(1, 2))

    assert [row.endpoint.address for row in made.rows] == [
        "10.0.0.1:1",
        "10.0.0.1:2",
        "10.0.0.2:1",
        "10.0.0.2:2",
        "10.0.0.4:1",
        "10.0.0.4:2",
    ]


def test_a_pod_without_address_is_no_endpoint() -> None:
    assert table(replace(pod("a"), ip=None)).rows == []


@pytest.mark.parametrize("names", ["az", "za"])
def test_an_address_belongs_to_the_pod_that_is_ready(names: str) -> None:
    """A pod that has ended keeps its address in the API until it is removed."""
    lives, ended = names
    made = table(pod(lives, "10.0.0.9"), pod(ended, "10.0.0.9", ready=False))

    assert [(row.endpoint.pod, row.endpoint.address) for row in made.rows] == [(lives, "10.0.0.9:8000")]


def test_an_ipv6_endpoint_has_brackets() -> None:
    assert table(pod("a", "fd00::1")).rows[0].endpoint.address == "[fd00::1]:8000"


def test_a_pool_that_is_not_there_has_no_endpoints() -> None:
    made = table(pod("a"))
    made.apply(ClusterChanged(Cluster()), 1.0)

    assert made.pool is None
    assert made.ranks(1.0) == []


def test_kernel_counts_are_the_load() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(3), "b": kernel(1)}, full=True), 0.0)

    assert made.ranks(0.0) == [3, 1]
    assert {row.source for row in made.rows} == {Source.KERNEL}


def test_a_pick_counts_until_the_kernel_shows_it_and_then_once() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(1, started=1)}, full=True), 0.0)
    made.reserve(made.rows[0], 0.01)
    assert made.ranks(0.01) == [2]

    made.apply(frame({"a": kernel(2, at=0.03, started=2)}), 0.03)

    assert made.ranks(0.03) == [2]


def test_a_frame_that_was_on_its_way_does_not_show_a_later_pick() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(0, started=0)}, full=True), 0.0)
    made.reserve(made.rows[0], 0.010)
    made.apply(frame({"a": kernel(1, at=0.009, started=1)}), 0.011)

    assert made.ranks(0.011) == [2]


def test_a_dropped_pick_leaves_no_trace() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(0)}, full=True), 0.0)
    made.drop(made.rows[0], made.reserve(made.rows[0], 0.01), 0.02)

    assert made.ranks(0.02) == [0]


def test_a_counter_that_fell_is_a_new_beginning() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(0, started=100)}, full=True), 0.0)
    made.reserve(made.rows[0], 0.1)
    made.apply(frame({"a": kernel(1, at=0.5, started=1)}), 0.5)

    assert made.ranks(0.5) == [1]


def test_an_endpoint_that_a_full_frame_leaves_out_is_unmeasured() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(3), "b": kernel(0)}, full=True), 0.0)
    made.apply(frame({"b": kernel(0, at=0.1)}, full=True), 0.1)

    assert [row.source for row in made.rows] == [Source.OWN, Source.KERNEL]


def test_another_pods_report_under_the_same_name_is_not_used() -> None:
    made = table(pod("a"))
    made.apply(FrameReceived("node-1", True, [report("a", kernel(3), uid="before")]), 0.0)

    assert made.rows[0].kernel is None


def test_a_report_that_came_before_its_pod_is_used_once_the_pod_is_known() -> None:
    made = table()
    made.apply(frame({"a": kernel(3)}, full=True), 0.0)
    made.apply(ClusterChanged(cluster(pod("a"))), 0.1)

    assert made.ranks(0.1) == [3]


def test_an_engines_word_counts_where_the_kernel_says_nothing() -> None:
    made = table(pod("a"))
    made.apply(EngineScraped("10.0.0.1:8000", engine(4, 2)), 0.0)
    made.reserve(made.rows[0], 0.1)

    assert made.ranks(0.1) == [7]
    assert made.rows[0].source is Source.ENGINE


def test_a_page_written_after_a_pick_holds_it() -> None:
    made = table(pod("a"))
    made.reserve(made.rows[0], 0.1)
    made.apply(EngineScraped("10.0.0.1:8000", engine(1, 0, at=0.5)), 0.5)

    assert made.ranks(0.5) == [1]


def test_an_engines_zero_does_not_hide_an_exchange_that_we_hold_open() -> None:
    made = table(pod("a"))
    made.reserve(made.rows[0], 0.1)
    made.apply(EngineScraped("10.0.0.1:8000", engine(0, 0, at=0.5)), 0.5)

    assert made.ranks(0.5) == [1]


def test_an_old_page_is_not_used() -> None:
    made = table(pod("a"))
    made.apply(EngineScraped("10.0.0.1:8000", engine(4, 2)), 0.0)

    assert made.ranks(ENGINE_LIMIT_S + 0.01) == [0]
    assert made.rows[0].source is Source.OWN


def test_unknown_is_not_zero() -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    made.apply(frame({"a": kernel(2), "b": kernel(4)}, full=True), 0.0)

    assert made.ranks(0.0) == [2, 4, 3]


def test_an_unmeasured_endpoint_also_counts_our_own_picks() -> None:
    made = table(pod("a"), pod("c"))
    made.apply(frame({"a": kernel(2)}, full=True), 0.0)
    made.reserve(made.rows[1], 0.1)

    assert made.ranks(0.1) == [2, 3]


def test_where_nothing_is_measured_our_own_picks_count() -> None:
    made = table(pod("a"), pod("b"))
    made.reserve(made.rows[1], 0.1)

    assert made.ranks(0.1) == [0, 1]


def test_unready_and_terminating_endpoints_come_last() -> None:
    made = table(pod("a", ready=False), pod("b", terminating=True), pod("c"))

    assert made.ranks(0.0) == [UNREADY_STEP, TERMINATING_STEP, 0]


def test_a_stall_is_noticed_between_frames() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1), "b": kernel(5)}, full=True), 0.0)
    made.apply(frame({"b": kernel(5, at=0.25)}, at=0.25), 0.25)

    assert made.ranks(0.29) == [1, 5]
    assert made.ranks(0.31) == [1 + STALLED_STEP, 5]


def test_a_suspect_gets_one_trial_at_a_time() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1), "b": kernel(0)}, full=True), 0.0)
    made.apply(frame({}, at=1.0), 1.0)
    made.ranks(1.0)
    made.apply(frame({"a": kernel(0, at=1.1, started=1), "b": kernel(0, at=1.1)}, full=True), 1.1)
    assert made.ranks(1.1) == [STALLED_STEP, 0]
    made.apply(frame({"a": kernel(0, at=2.2, started=1), "b": kernel(3, at=2.2)}, full=True), 2.2)
    assert made.ranks(2.2) == [0, 3]

    made.reserve(made.rows[0], 2.2)

    assert made.ranks(2.2) == [1 + STALLED_STEP, 3]
    assert made.rows[0].vigil.state is State.TRIAL


def test_a_pod_that_takes_over_a_name_begins_anew() -> None:
    made = table(pod("a"))
    made.reserve(made.rows[0], 0.0)
    made.apply(ClusterChanged(cluster(pod("a", uid="another"))), 0.1)

    assert made.ranks(0.1) == [0]


def test_a_pod_that_turns_unready_keeps_what_is_known_of_it() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(3)}, full=True), 0.0)
    made.reserve(made.rows[0], 0.1)
    made.apply(ClusterChanged(cluster(pod("a", ready=False))), 0.1)

    assert made.ranks(0.1) == [4 + UNREADY_STEP]


def test_a_pick_that_outlives_its_endpoint_is_closed_without_harm() -> None:
    made = table(pod("a"), pod("b"))
    picked = Picker(made, rng=Random(1)).pick(ANY, 0.0)
    assert picked is not None
    made.apply(ClusterChanged(cluster()), 0.1)

    picked.end(0.2)

    assert made.ranks(0.2) == []


def test_a_picker_spreads_a_burst_by_its_own_reservations() -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    made.apply(frame({"a": kernel(0), "b": kernel(0), "c": kernel(0)}, full=True), 0.0)
    picker = Picker(made, rng=Random(1))

    picks = [picker.pick(ANY, 0.001) for _ in range(9)]

    assert sorted(pick.destination for pick in picks if pick) == sorted(
        f"10.0.0.{number}:8000" for number in (1, 2, 3) for _ in range(3)
    )


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (("10.0.0.2:8000",), "10.0.0.2:8000"),
        (("10.0.0.2",), "10.0.0.2:8000"),
        (("nowhere", "10.0.0.2:8000"), "10.0.0.2:8000"),
        (("[fd00::3]:8000",), "[fd00::3]:8000"),
        (("fd00::3",), "[fd00::3]:8000"),
        (("10.0.0.2:8001",), None),
        ((), None),
    ],
)
def test_only_what_the_gateway_allows_is_picked(subset: tuple[str, ...], expected: str | None) -> None:
    made = table(pod("a"), pod("b"), pod("c", "fd00::3"))
    picked = Picker(made, rng=Random(1)).pick(Request("/", None, subset), 0.0)

    assert (picked.destination if picked else None) == expected


def test_no_endpoint_is_no_pick() -> None:
    assert Picker(table()).pick(ANY, 0.0) is None


def test_the_queue_of_times_does_not_grow_with_frames() -> None:
    made = table(pod("a"), pod("b"))
    for step in range(2000):
        now = step * 0.02
        made.apply(frame({"a": kernel(1, at=now, progress=step), "b": kernel(1, at=now, progress=step)}), now)
        made.ranks(now)

    assert len(made._dues) < 200


def test_an_idle_pool_is_learned_from_less_often() -> None:
    made = table(pod("a"))
    looks = []
    for step in range(40):
        now, busy = 1.0 + step * 0.125, step >= 20
        made.apply(frame({"a": kernel(int(busy), at=now)}, at=now), now)
        looks += [busy] if made.fleet.learned_at_s == now else []

    assert looks.count(False) in (2, 3)
    assert looks.count(True) >= 18


def test_load_is_exact_under_a_simulated_stream_of_requests() -> None:
    """Own picks only, so the truth is known: the requests under way, however the frames lag."""
    rng = Random(7)
    made = table(pod("a"))
    made.apply(frame({"a": kernel(0, started=0)}, full=True), 0.0)
    picker = Picker(made, rng=rng)
    started = in_flight = progress = 0
    running: list[tuple[float, Any]] = []
    arrivals: list[tuple[float, Any]] = []
    for step in range(1, 4000):
        now = step * 0.005
        if rng.random() < 0.4:
            pick = picker.pick(ANY, now)
            arrivals.append((now + rng.uniform(0.001, 0.004), pick))
        for arrival in [entry for entry in arrivals if entry[0] <= now]:
            arrivals.remove(arrival)
            started, in_flight = started + 1, in_flight + 1
            running.append((now + rng.expovariate(5), arrival[1]))
        for entry in [entry for entry in running if entry[0] <= now]:
            running.remove(entry)
            in_flight, progress = in_flight - 1, progress + 1
            entry[1].end(now)
        if step % 4 == 0:
            signal: KernelSignal = kernel(in_flight, at=now, started=started, progress=step)
            made.apply(frame({"a": signal}, full=step % 200 == 0), now)
            assert made.ranks(now) == [in_flight + len(arrivals)]


def test_a_pod_that_names_its_active_ports_has_endpoints_for_these_only() -> None:
    made = table(pod("a", active_ports=frozenset({8001})), pod("b"), ports=(8000, 8001))

    assert [row.endpoint.address for row in made.rows] == ["10.0.0.1:8001", "10.0.0.2:8000", "10.0.0.2:8001"]
