"""Whole runs: the same each time, nothing lost, and faults that do what they say."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from bench.policy.engine import Engine
from bench.policy.faults import Absent, AgentDead, AgentLies, AgentStuck, Dark, Far, Hang, Lossy, Slow
from bench.policy.hardware import H100
from bench.policy.picker import Rival
from bench.policy.prefixes import PrefixIndex
from bench.policy.requests import Request
from bench.policy.signals import KernelView, PageView, Pod
from bench.policy.simulation import CONNECT_TIMEOUT_S, Plant, Simulation
from bench.policy.workloads import Load, requests
from controller.policies.peers import PEERS
from controller.policies.price import SONDE

SONDES = Rival("sonde", SONDE, kernel=True, responses=False, prefixes=True)
LEAST = Rival("least-request", PEERS["least-request"])
TURNS = Rival("round-robin", PEERS["round-robin"])
POOL = Plant((H100,) * 4)
LOAD = Load(rate=40)


def run(plant: Plant = POOL, rival: Rival = LEAST, load: Load = LOAD, duration_s: float = 10.0) -> list[Request]:
    sent = requests(load, len(plant.gpus), duration_s, seed=3)
    Simulation(plant, rival, sent, seed=3).run(duration_s + 60)
    return sent


def ttft_s(sent: list[Request], share: float) -> float:
    return float(np.quantile([one.ttft_s for one in sent], share))


@pytest.mark.parametrize("rival", [SONDES, LEAST])
def test_the_same_seed_gives_the_same_run(rival):
    plant = replace(POOL, pickers=2)
    one, other = ([(request.pod, request.first_s, request.end_s) for request in run(plant, rival)] for _ in range(2))
    assert one == other


@pytest.mark.parametrize("rival", [SONDES, LEAST])
def test_every_request_is_answered_in_order_of_its_events(rival):
    sent = run(rival=rival)
    assert all(one.over and not one.failed for one in sent)
    assert all(one.at_s < one.arrived_s < one.first_s <= one.end_s for one in sent)


def test_a_picker_ends_with_nothing_counted():
    sent = requests(LOAD, 4, 10.0, seed=1)
    simulation = Simulation(POOL, SONDES, sent, seed=1)
    simulation.run(80.0)
    fleet = simulation.pickers[0].fleet
    for name in ("own_in_flight", "own_open", "own_waiting", "own_tokens", "queued_tokens"):
        assert getattr(fleet, name).tolist() == [0.0] * 4, name


def test_a_slow_pod_is_slow_while_it_lasts():
    sent = run(replace(POOL, faults=(Slow((0,), 3.0, 4.0, 4.0, until_s=6.0),)), TURNS)
    own = [one.ttft_s for one in sent if one.pod == 0 and 3.2 < one.at_s < 5.5]
    others = [one.ttft_s for one in sent if one.pod != 0 and 3.2 < one.at_s < 5.5]
    assert np.median(own) > 3 * np.median(others)


def test_a_hung_pod_answers_after_it_goes_on():
    sent = run(replace(POOL, faults=(Hang((0,), 3.0, 6.0),)), TURNS)
    assert all(one.over and not one.failed for one in sent)
    assert not any(3.01 < one.first_s < 6.0 for one in sent if one.pod == 0)


def test_clients_of_a_pod_that_hangs_for_long_give_up():
    sent = run(replace(POOL, faults=(Hang((0,), 3.0, 200.0),)), TURNS, duration_s=70.0)
    gave_up = [one for one in sent if one.failed]
    assert gave_up
    assert {one.pod for one in gave_up} == {0}


def test_nothing_reaches_a_pod_gone_dark():
    sent = run(replace(POOL, faults=(Dark((0,), 3.0),)), TURNS)
    lost = [one for one in sent if one.pod == 0 and one.at_s > 3.0]
    assert lost
    assert all(one.failed and math.isnan(one.arrived_s) for one in lost)
    assert CONNECT_TIMEOUT_S > 0


def test_a_far_pod_costs_both_ways():
    near, far = (run(replace(POOL, faults=faults), TURNS) for faults in ((), (Far((0,), 0.0, 0.4),)))
    more = [b.ttft_s - a.ttft_s for a, b in zip(near, far, strict=True) if a.pod == 0]
    assert np.median(more) == pytest.approx(0.8, abs=0.05)


def test_lost_packets_cost_timeouts_now_and_then():
    sent = run(replace(POOL, faults=(Lossy((0,), 0.0, 0.05),)), TURNS)
    slow = [one.ttft_s > 0.2 for one in sent if one.pod == 0]
    assert 0.1 < np.mean(slow) < 0.5


def test_an_absent_pod_gets_nothing_and_is_cold_afterwards():
    sent = run(replace(POOL, faults=(Absent((0,), 4.0),)), TURNS)
    assert min(one.at_s for one in sent if one.pod == 0) >= 4.0


def test_least_request_sends_a_slow_pod_less():
    sent = run(replace(POOL, faults=(Slow((0,), 0.0, 3.0, 3.0),)), LEAST)
    counts = np.bincount([one.pod for one in sent], minlength=4)
    assert counts[0] < 0.75 * counts[1:].mean()


def test_bypass_traffic_is_seen_by_no_picker():
    sent = run(load=replace(LOAD, bypass_rate=10.0, bypass_pods=1))
    bypass = [one for one in sent if one.bypass_pod >= 0]
    assert 60 < len(bypass) < 150
    assert {one.pod for one in bypass} == {3}


def views() -> tuple[Pod, KernelView]:
    pod = Pod(Engine(H100))
    return pod, KernelView([pod], period_s=0.02, delay_s=0.002)


def test_the_kernels_counts_come_late_by_period_and_delay():
    pod, view = views()
    pod.count(0.105, 1, 1)
    view.refresh(0.121)
    assert view.rows[:3, 0].tolist() == [0.0, 0.0, pytest.approx(0.10)]
    view.refresh(0.122)
    assert view.rows[:3, 0].tolist() == [1.0, 1.0, pytest.approx(0.12)]


def test_a_dead_agent_leaves_its_last_word_and_a_liar_a_fresh_one():
    pod, view = views()
    view.refresh(1.0)
    view.dead = True
    pod.count(1.1, 5, 5)
    assert not view.refresh(2.0)
    assert view.rows[0, 0] == 0.0
    view.dead, view.lie = False, lambda: (9.0, 3.0)
    view.refresh(3.0)
    assert view.rows[:3, 0].tolist() == [9.0, 3.0, pytest.approx(2.98)]


def test_a_stuck_agent_says_the_same_as_if_it_were_new():
    pod, view = views()
    pod.count(0.9, 3, 1)
    view.refresh(1.0)
    view.stuck = True
    pod.count(1.1, 5, 5)
    assert view.refresh(2.0)
    assert view.rows[:3, 0].tolist() == [3.0, 1.0, pytest.approx(1.98)]


LIES = [AgentDead(2.0), AgentStuck(2.0), AgentLies(2.0, 0.0, 0.0), AgentLies(2.0, 500.0, 400.0, by_chance=True)]


@pytest.mark.parametrize("fault", LIES)
def test_without_a_true_agent_everybody_is_still_answered(fault):
    sent = run(replace(POOL, faults=(fault,)), SONDES)
    assert all(one.over and not one.failed for one in sent)


def test_a_page_shows_the_past_until_the_next_scrape():
    pod = Pod(Engine(H100))
    view = PageView([pod], 1.0, Random(1))
    view.refresh(0.9)
    pod.pages.append((1.0, 7, 2, 0.5))
    times = [at_s / 100 for at_s in range(90, 250) if view.refresh(at_s / 100)]
    assert times[0] == pytest.approx(1.0, abs=1.0)
    assert view.rows[:3, 0].tolist() == [7.0, 2.0, 0.5]
    assert 1 <= len(times) <= 2


def test_the_index_knows_the_longest_beginning_each_pod_was_sent():
    index = PrefixIndex([100_000, 100_000, 3 * 256])
    index.insert(0, (1, 2, 3, 4))
    index.insert(1, (1, 2))
    index.insert(2, (1, 2, 3, 4))  # holds three
    assert index.uncached((1, 2, 3, 4, 5), 1300).tolist() == [1300 - 1024, 1300 - 512, 1300 - 768]
    assert index.uncached((9,), 300).tolist() == [300, 300, 300]


def test_arrivals_have_the_asked_rate_and_variation():
    for variation in (1.0, 3.5):
        at_s = np.array([one.at_s for one in requests(Load(50.0, variation), 8, 400.0, seed=5)])
        assert len(at_s) / 400 == pytest.approx(50, rel=0.25)
    calm, bursty = (
        np.bincount([int(one.at_s) for one in requests(Load(50.0, variation), 8, 300.0, 5)]).var()
        for variation in (1.0, 3.5)
    )
    assert bursty > 3 * calm


def test_lengths_follow_the_published_quantiles():
    sent = requests(Load(100.0), 8, 100.0, seed=2)
    assert np.median([one.prompt_tokens for one in sent]) == pytest.approx(1020, rel=0.05)
    assert np.quantile([one.output_tokens for one in sent], 0.9) == pytest.approx(424, rel=0.05)


def test_a_turn_of_a_conversation_begins_with_all_before_it():
    sent = requests(Load(20.0, kind="chat"), 8, 60.0, seed=2)
    talks: dict[str, Request] = {}
    repeats = 0
    for one in sent:
        before = talks.get(one.session or "")
        if before is not None:
            assert one.blocks[: len(before.final_blocks)] == before.final_blocks
            repeats += 1
        talks[one.session or ""] = one
    assert repeats > 100
