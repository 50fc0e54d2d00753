"""The fast engine against `lab.engines.batching`, which takes one step at a time."""

from __future__ import annotations

import math
from random import Random

import pytest

from bench.policy.adapters import Adapters
from bench.policy.cache import BLOCK_TOKENS, Cache
from bench.policy.engine import Engine
from bench.policy.hardware import Gpu
from bench.policy.requests import Request
from lab.engines import batching

LATE = math.inf
MODEL = batching.Model(0.01, 0.0005, 1e-6, 3e-5, max_sequences=8, max_step_tokens=512, kv_tokens=100_000)

Times = dict[int, float]


def gpu(model: batching.Model = MODEL) -> Gpu:
    costs = (model.step_s, model.sequence_s, model.kv_token_s, model.prefill_token_s)
    return Gpu(*costs, 0.0, model.kv_tokens, model.max_sequences, model.max_step_tokens, block_tokens=1)


def step_by_step(model: batching.Model, schedule: list[tuple[float, int, int]]) -> tuple[Times, Times]:
    """When each request got its first token and its last."""
    batch, step, number = batching.Batch(), None, 0
    first: Times = {}
    last: Times = {}
    while number < len(schedule) or step is not None:
        arrival_s = schedule[number][0] if number < len(schedule) else LATE
        if step is not None and step.ends_s <= arrival_s:
            now_s = step.ends_s
            batch, tokens = batching.finish(batch, step)
            for token in tokens:
                first.setdefault(token.id, now_s)
                if token.last:
                    last[token.id] = now_s
            batch, step = batching.plan(batch, model, now_s)
            continue
        batch = batching.enqueue(batch, batching.Sequence(number, *schedule[number][1:]))
        number += 1
        if step is None:
            batch, step = batching.plan(batch, model, arrival_s)
    return first, last


def fast(engine: Engine, requests: list[Request]) -> tuple[Times, Times]:
    numbers = {request: number for number, request in enumerate(requests)}
    first: Times = {}
    last: Times = {}
    coming = list(requests)
    while coming or engine.next_s != LATE:
        if coming and coming[0].at_s < engine.next_s:
            request = coming.pop(0)
            engine.add(request, request.at_s)
            continue
        now_s = engine.next_s
        begun, ended = engine.advance()
        for request in begun:
            first.setdefault(numbers[request], now_s)
        for request in ended:
            last[numbers[request]] = now_s
    return first, last


def schedule_of(seed: int, count: int = 50) -> list[tuple[float, int, int]]:
    rng = Random(seed)
    return sorted((rng.random() * 6, rng.randrange(2, 300), rng.randrange(1, 200)) for _ in range(count))


@pytest.mark.parametrize("seed", range(12))
def test_every_token_comes_when_the_step_by_step_model_says(seed):
    schedule = schedule_of(seed)
    model = batching.Model(
        0.01, 0.0005, 1e-6, 3e-5, max_sequences=(4, 8, 64)[seed % 3], max_step_tokens=4096, kv_tokens=100_000
    )
    engine = Engine(gpu(model))
    for mine, reference in zip(
        fast(engine, [Request(*one) for one in schedule]), step_by_step(model, schedule), strict=True
    ):
        assert mine == pytest.approx(reference, abs=1e-9)
    assert (engine.held_tokens, engine.computed_tokens) == (0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_when_space_ends_the_youngest_is_put_back_as_in_the_model(seed):
    schedule = schedule_of(seed)
    model = batching.Model(0.01, 0.0005, 1e-6, 3e-5, max_sequences=64, max_step_tokens=8192, kv_tokens=1200)
    engine = Engine(gpu(model))
    mine = fast(engine, [Request(*one) for one in schedule])
    assert engine.preemptions > 0
    for times, reference in zip(mine, step_by_step(model, schedule), strict=True):
        assert times == pytest.approx(reference, abs=1e-9)


def test_attention_makes_long_prompts_dearer_per_token():
    costs = (0.01, 0.0, 0.0, 1e-5)
    ttft_s = []
    for tokens in (1000, 4000):
        engine = Engine(Gpu(*costs, 1e-8, 100_000))
        first, _ = fast(engine, [Request(0.0, tokens, 1)])
        ttft_s.append(first[0] - 0.01)
    assert ttft_s == pytest.approx([1000 * 1e-5 + 1e-8 * 1000**2 / 2, 4000 * 1e-5 + 1e-8 * 4000**2 / 2])


def test_a_gone_client_frees_its_place_and_space():
    engine = Engine(gpu())
    gone, stays = Request(0.0, 100, 1000), Request(0.0, 100, 50)
    engine.add(gone, 0.0)
    engine.add(stays, 0.0)
    while engine.next_s < 0.3:
        engine.advance()
    engine.remove(gone, 0.3)
    ended = []
    while engine.next_s != LATE:
        ended += engine.advance()[1]
    assert ended == [stays]
    assert (engine.held_tokens, engine.computed_tokens, len(engine.running)) == (0, 0, 0)


def test_a_hang_delays_by_its_length_and_loses_nothing():
    def ends(hang: bool) -> float:
        engine = Engine(gpu())
        engine.add(Request(0.0, 100, 50), 0.0)
        if hang:
            while engine.next_s < 0.2:
                engine.advance()
            engine.hang(0.2)
            assert engine.next_s == LATE
            engine.resume(1.2)
        end_s = 0.0
        while engine.next_s != LATE:
            end_s = engine.next_s
            engine.advance()
        return end_s

    step_s = 0.01 + 0.0005 + 150e-6
    assert ends(True) == pytest.approx(ends(False) + 1.0, abs=step_s)  # the step under way is done again


def test_a_cached_prefix_is_not_computed_again_and_shares_space():
    blocks = tuple(range(4))
    engine = Engine(gpu(batching.Model(0.01, 0.0, 0.0, 1e-5, 8, 8192, 100_000)), Cache())
    prompt = 4 * BLOCK_TOKENS + 100
    requests = [Request(at_s, prompt, 2, blocks, blocks) for at_s in (0.0, 1.0, 1.0)]
    first, _ = fast(engine, requests[:1])
    assert first[0] == pytest.approx(0.01 + prompt * 1e-5)
    for request in requests[1:]:
        engine.add(request, 1.0)
    assert engine.next_s - 1.0 == pytest.approx(0.01 + 100 * 1e-5)
    engine.advance()
    assert engine.held_tokens == prompt + 1 + 100  # the second one's 4 blocks are the first one's
    while engine.next_s != LATE:
        engine.advance()
    assert (engine.held_tokens, engine.computed_tokens) == (0, 0)


def test_cached_blocks_make_room_for_running_requests():
    cache = Cache()
    model = batching.Model(0.01, 0.0, 0.0, 1e-5, 8, 8192, kv_tokens=8 * BLOCK_TOKENS)
    engine = Engine(gpu(model), cache)
    fast(engine, [Request(0.0, 4 * BLOCK_TOKENS + 9, 2, (1, 2, 3, 4), (1, 2, 3, 4))])
    assert cache.matched((1, 2, 3, 4)) == 4
    engine.add(Request(9.0, 6 * BLOCK_TOKENS + 9, 2), 9.0)
    assert cache.matched((1, 2, 3, 4)) == 1  # the end of the chain went first
    assert cache.matched((1,)) == 1


def test_an_adapter_that_is_not_loaded_costs_its_load_once():
    def first_s(*adapters: int) -> list[float]:
        engine = Engine(gpu(), adapters=Adapters(1, 0.25))
        requests = [Request(10.0 * number, 100, 5, adapter=one) for number, one in enumerate(adapters)]
        first, _ = fast(engine, requests)
        return [first[number] - requests[number].at_s for number in range(len(requests))]

    loaded = first_s(1, 1)
    assert loaded[0] - loaded[1] == pytest.approx(0.25)
    assert first_s(1, 2)[1] == pytest.approx(loaded[0])  # 1 must go for 2


def test_a_request_waits_while_running_ones_need_all_adapters():
    engine = Engine(gpu(), adapters=Adapters(1, 0.25))
    requests = [Request(0.0, 100, 20, adapter=1), Request(0.01, 100, 5, adapter=2), Request(0.02, 100, 5, adapter=1)]
    first, last = fast(engine, requests)
    assert first[2] < first[1]  # passes the one that cannot be served
    assert first[1] > max(last[0], last[2])
