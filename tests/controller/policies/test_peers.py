"""Each peer's choice against its documented formula, worked out by hand."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest

from controller.policies.fleet import TERMINATING, UNREADY, Fleet, Job
from controller.policies.parts import Engine
from controller.policies.peers import PEERS, aibrix, dynamo, ewma, gie, predicted, prequal, simple
from controller.policies.registry import POLICIES
from tests.controller.policies.fleets import NOW_S, fleet

JOB = Job(1000.0)


def picks(name: str, seen: Fleet, job: Job = JOB, times: int = 200) -> Counter[int]:
    policy, rng = PEERS[name], Random(1)
    memory = policy.new()
    return Counter(policy.choose(seen, job, rng, memory) for _ in range(times))


def only(name: str, seen: Fleet, job: Job = JOB) -> int:
    """The choice of a rule that leaves nothing to chance here."""
    (at,) = picks(name, seen, job, 20)
    return at


def cached(tokens: list[float], prompt: float = 1000.0) -> Job:
    return Job(prompt, uncached=prompt - np.array(tokens))


@pytest.mark.parametrize("name", PEERS)
def test_nobody_picks_what_does_not_serve(name):
    seen = fleet(4, own_in_flight=[0, 5, 5, 0], standing=[UNREADY, 0, 0, TERMINATING])
    assert set(picks(name, seen)) <= {1, 2}


@pytest.mark.parametrize("name", PEERS)
def test_everybody_picks_from_one_or_from_unready_ones(name):
    assert set(picks(name, fleet(1))) == {0}
    assert set(picks(name, fleet(3, standing=UNREADY))) <= {0, 1, 2}


@pytest.mark.parametrize("name", PEERS)
def test_numbers_that_cannot_be_stop_nobody(name):
    absurd = fleet(3)
    absurd.matrix[:-2] = np.nan
    assert set(picks(name, absurd)) <= {0, 1, 2}
    assert set(picks(name, fleet(3), Job(0.0, uncached=np.zeros(3)))) <= {0, 1, 2}


@pytest.mark.parametrize("name", ["random", "p2c", "llm-d", "lmetric", "dynamo", "least-request", "sglang", "vllm-dp"])
def test_equals_are_drawn_by_chance(name):
    counts = picks(name, fleet(4, queued=0.0, running=0.0, kv_usage=0.0), times=400)
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) < 160


def test_round_robin_takes_turns_among_those_that_serve():
    policy = simple.ROUND_ROBIN
    memory, seen = policy.new(), fleet(3, standing=[0, UNREADY, 0])
    assert [policy.choose(seen, JOB, Random(1), memory) for _ in range(4)] == [0, 2, 0, 2]


def test_two_choices_never_take_the_most_loaded_of_two_pods_that_differ():
    """With replacement: the worst of n is chosen only if drawn twice, 1 in n^2."""
    counts = picks("p2c", fleet(4, own_in_flight=[1, 2, 3, 4]), times=1600)
    assert counts[3] == pytest.approx(100, abs=40)
    assert counts[0] == pytest.approx(1600 * 7 / 16, abs=90)


def test_least_request_takes_the_fewest_active():
    assert only("least-request", fleet(3, own_in_flight=[3, 1, 2])) == 1


@pytest.mark.parametrize(("active", "chosen"), [([2, 1], 0), ([2, 0], None), ([7, 1], 1), ([4, 1], 0), ([8, 1], 1)])
def test_weights_divide_the_active_requests(active, chosen):
    """Three to one: the lower of (active + 1) / weight; a tie at 2 and 0."""
    policy, seen = simple.weighted([3.0, 1.0]), fleet(2, own_in_flight=active)
    drawn = {policy.choose(seen, JOB, Random(seed), None) for seed in range(20)}
    assert drawn == ({0, 1} if chosen is None else {chosen})


def test_peak_ewma_jumps_to_a_peak_and_decays_from_it():
    policy = ewma.PEAK_EWMA
    memory, seen = policy.new(), fleet(2)
    for at in (0, 1):
        policy.first_byte(seen, at, JOB, 0.1, memory)
    seen.now_s += 1e6  # all before is forgotten
    policy.first_byte(seen, 0, JOB, 0.1, memory)
    policy.first_byte(seen, 1, JOB, 0.1, memory)
    policy.first_byte(seen, 0, JOB, 2.0, memory)
    values = [memory[name].value_s for name in seen.ids]
    assert values == pytest.approx([2.0, 0.1])
    seen.now_s += 10.0
    policy.first_byte(seen, 0, JOB, 0.1, memory)
    assert memory[seen.ids[0]].value_s == pytest.approx(2.0 / np.e + 0.1 * (1 - 1 / np.e))
    assert {policy.choose(seen, JOB, Random(seed), memory) for seed in range(9)} == {1}


def test_peak_ewma_multiplies_by_pending_requests():
    policy = ewma.PEAK_EWMA
    memory, seen = policy.new(), fleet(2, own_in_flight=[0, 19])
    seen.now_s += 1e6
    for at, ttft_s in ((0, 1.0), (1, 0.1)):
        memory[seen.ids[at]] = ewma.Latency(ttft_s, seen.now_s)
    assert policy.choose(seen, JOB, Random(1), memory) == 0  # 1.0 x 1 < 0.1 x 20
    seen.own_in_flight[1] = 5
    assert policy.choose(seen, JOB, Random(1), memory) == 1  # 0.1 x 6


def probes(*facts: tuple[int, float, float]) -> prequal.Memory:
    memory = prequal.Memory()
    memory.probes = [prequal.Probe(f"10.0.0.{at}:8000", NOW_S, rif, latency_s) for at, rif, latency_s in facts]
    return memory


def test_prequal_takes_the_fastest_cold_server():
    memory = probes((0, 9.0, 0.1), (1, 2.0, 0.5), (2, 3.0, 0.3), (3, 1.0, 0.9))
    assert prequal.PREQUAL.choose(fleet(4), JOB, Random(1), memory) == 2  # 0 is hot: at the .84 quantile


def test_prequal_takes_the_fewest_in_flight_if_all_are_hot():
    memory = probes((0, 9.0, 0.1), (1, 9.0, 0.5), (2, 9.0, 0.3))
    memory.probes[1].in_flight = 9.0
    assert prequal.PREQUAL.choose(fleet(3), JOB, Random(1), memory) == 0


def test_prequal_forgets_probes_after_a_second_and_then_draws():
    memory = probes((0, 0.0, 0.1), (1, 5.0, 0.5), (2, 9.0, 0.3))
    seen = fleet(3)
    seen.now_s += 1.1
    drawn = {prequal.PREQUAL.choose(seen, JOB, Random(seed), memory) for seed in range(30)}
    assert drawn == {0, 1, 2}


def test_prequal_probes_what_the_server_itself_has_in_flight():
    policy = prequal.PREQUAL
    memory, seen = policy.new(), fleet(3, in_flight=[4, 5, 6], own_in_flight=0.0)
    policy.sent(seen, 0, JOB, memory)
    assert {(one.endpoint, one.in_flight) for one in memory.probes} == set(zip(seen.ids, (4.0, 5.0, 6.0), strict=True))


def test_vllm_counts_waiting_four_times_and_what_it_sent_since():
    assert only("vllm-dp", fleet(2, queued=[1, 0], running=[10, 13])) == 1
    assert only("vllm-dp", fleet(2, queued=[1, 0], running=[10, 15])) == 0
    assert only("vllm-dp", fleet(2, queued=[1, 0], running=[10, 13], unpaged=[0, 1])) == 0


def test_llmd_sums_weighted_scores():
    """2 x queue over the range + 2 x free KV + 3 x prefix."""
    queue = fleet(3, queued=[0, 1, 100], kv_usage=[0.9, 0.1, 0.0])
    assert only("llm-d", queue) == 1  # 2.2, 1.98 + 1.8, 2.0
    assert only("llm-d", fleet(2, queued=[0, 1], kv_usage=[0.95, 0.0])) == 0  # one waiting counts as a hundred
    assert only("llm-d", fleet(2, queued=[0, 9], kv_usage=0.0), cached([0, 700])) == 1  # 2.1 outweighs 2.0
    assert only("llm-d", fleet(2, queued=[0, 9], kv_usage=0.0), cached([0, 600])) == 0


def test_llmd_takes_a_missing_metric_for_zero():
    assert only("llm-d", fleet(2, queued=[3, np.nan], kv_usage=[0.1, np.nan])) == 1


def test_the_tree_for_critical_requests_filters_by_queue_adapter_queue_and_kv():
    seen = fleet(4, queued=[0, 1, 90, 0], kv_usage=[0.5, 0.1, 0.0, 0.9])
    critical = Job(1000.0, priority=1)
    assert only("gie-v0.3", seen, critical) == 1  # queues up to (90 - 0) // 4 pass, then the lowest KV third
    adapter = Job(1000.0, adapter_wait_s=np.array([0.25, 0.25, 0.0, 0.25]), priority=1)
    assert only("gie-v0.3", seen, adapter) == 2
    full = fleet(3, queued=[200, 500, 400], kv_usage=0.0)
    assert only("gie-v0.3", full, critical) == 0


@pytest.mark.parametrize("priority", [-1, 0])
def test_the_tree_for_all_but_critical_requests_needs_short_queues_and_free_kv(priority):
    job = Job(1000.0, priority=priority)
    seen = fleet(3, queued=[5, 6, 0], kv_usage=[0.8, 0.0, 0.81])
    assert only("gie-v0.3", seen, job) == 0


def test_lmetric_multiplies_new_tokens_by_the_batch():
    assert only("lmetric", fleet(2, own_in_flight=[9, 1]), cached([900, 0])) == 0  # 100 x 10 < 1000 x 2
    assert only("lmetric", fleet(2, own_in_flight=[20, 1]), cached([900, 0])) == 1  # 100 x 21 > 1000 x 2


def test_dynamo_adds_blocks_to_prefill_and_blocks_in_use():
    seen = fleet(2, queued_tokens=[0, 500], own_tokens=[2000, 1000])
    assert only("dynamo", seen) == 1  # 1000 + 3000 > 1500 + 2000
    assert only("dynamo", seen, cached([600, 0])) == 0  # 400 + 3000 < 1500 + 2000
    assert dynamo.dynamo(0.1).choose(seen, cached([600, 0]), Random(1), None) == 1


def test_sglang_goes_by_prefix_until_loads_differ_too_much():
    job = cached([0, 400])
    assert only("sglang", fleet(2, own_in_flight=[0, 60]), job) == 1
    assert only("sglang", fleet(2, own_in_flight=[0, 65]), job) == 0
    assert only("sglang", fleet(2, own_in_flight=[140, 205]), job) == 1  # not 1.5 times
    assert only("sglang", fleet(2, own_in_flight=[0, 60]), cached([0, 290])) == 0  # not above .3


def test_aibrix_goes_by_prefix_among_those_not_far_above_the_mean():
    assert only("aibrix-prefix", fleet(4, own_in_flight=[1, 1, 1, 3]), cached([0, 200, 100, 900])) == 1
    assert only("aibrix-prefix", fleet(4, own_in_flight=[2, 2, 2, 2]), cached([0, 200, 100, 900])) == 3
    assert only("aibrix-prefix", fleet(2, own_in_flight=[0, 9]), cached([0, 900])) == 0
    assert (
        aibrix.aibrix(imbalance=9.0, deviations=1.0).choose(
            fleet(2, own_in_flight=[0, 9]), cached([0, 900]), Random(1), None
        )
        == 1
    )  # 9 is not above 4.5 + 4.5


def test_predicted_latency_weighs_both_predictions_over_their_range():
    rule = predicted.predicted((Engine(0.01, 0.001, 0.0, 1e-4),), affinity=2.0)
    seen = fleet(2, queued_tokens=[0, 1000], own_in_flight=[20, 0])
    assert rule.choose(seen, JOB, Random(1), None) == 0  # to the first token .8 against .2 for the gap
    other = predicted.predicted((Engine(0.01, 0.001, 0.0, 1e-4),), weights=(0.1, 0.9), affinity=2.0)
    assert other.choose(seen, JOB, Random(1), None) == 1


def test_predicted_latency_stays_with_a_prefix_until_it_costs_too_much():
    near = cached([900, 0])
    assert only("predicted-latency", fleet(2, queued_tokens=[100_000, 0]), near) == 0  # 2.4 s
    assert only("predicted-latency", fleet(2, queued_tokens=[300_000, 0]), near) == 1  # 7 s


def test_predicted_latency_told_the_hardware_prefers_the_faster():
    engines = (Engine(0.0133, 3.2e-5, 9.7e-8, 7.2e-5), Engine())
    rule = predicted.predicted(engines)
    assert {rule.choose(fleet(2), JOB, Random(seed), None) for seed in range(9)} == {1}


def test_the_rules_that_need_no_responses_can_be_run():
    assert set(POLICIES) - {"sonde"} == {name for name, policy in PEERS.items() if policy.live}
    assert not PEERS["prequal"].live
    assert gie.WEIGHTS == (2.0, 2.0, 3.0)
