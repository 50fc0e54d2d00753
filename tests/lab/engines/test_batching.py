from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.engines.batching import Batch, Model, Sequence, enqueue, finish, plan, remove

MODEL = Model(
    step_s=0.01,
    sequence_s=0.001,
    kv_token_s=0.0001,
    prefill_token_s=0.00001,
    max_sequences=3,
    max_step_tokens=64,
    kv_tokens=200,
)

# each fits an empty engine: at most 100 + 100 tokens
sizes = st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), min_size=1, max_size=8)


def batch_of(requests: list[tuple[int, int]]) -> Batch:
    batch = Batch()
    for number, (prompt, output) in enumerate(requests):
        batch = enqueue(batch, Sequence(number, prompt, output))
    return batch


def run(batch: Batch, model: Model = MODEL):
    """Every step until nothing is left: (batch during the step, step, tokens that came out)."""
    now_s, steps = 0.0, []
    while True:
        planned, step = plan(batch, model, now_s)
        if step is None:
            return steps
        batch, tokens = finish(planned, step)
        steps.append((planned, step, tokens))
        assert len(steps) < 20_000, "no progress"
        now_s = step.ends_s


@given(sizes)
def test_every_request_gets_exactly_its_tokens(requests):
    out = Counter(token.id for _, _, tokens in run(batch_of(requests)) for token in tokens)
    assert out == {number: output for number, (_, output) in enumerate(requests)}


@given(sizes)
def test_tokens_come_in_order_and_the_last_says_so(requests):
    seen: dict[int, list[tuple[int, bool]]] = {}
    for _, _, tokens in run(batch_of(requests)):
        for token in tokens:
            seen.setdefault(token.id, []).append((token.index, token.last))
    for number, (_, output) in enumerate(requests):
        assert seen[number] == [(index, index == output - 1) for index in range(output)]


@given(sizes)
def test_no_limit_is_ever_exceeded(requests):
    for planned, step, _ in run(batch_of(requests)):
        assert len(planned.running) <= MODEL.max_sequences
        assert sum(step.tokens.values()) <= MODEL.max_step_tokens
        assert planned.kv_used + sum(step.tokens.values()) <= MODEL.kv_tokens


@given(sizes)
def test_time_always_goes_on(requests):
    ends = [step.ends_s for _, step, _ in run(batch_of(requests))]
    assert all(later >= earlier + MODEL.step_s for earlier, later in zip([0.0, *ends], ends, strict=False))


@given(sizes, st.integers(0, 7))
def test_a_removed_sequence_is_heard_of_no_more(requests, victim):
    planned, step = plan(batch_of(requests), MODEL, 0)
    assert step is not None
    after, tokens = finish(remove(planned, victim), step)
    assert victim not in {token.id for token in tokens}
    assert victim not in {sequence.id for sequence in (*after.running, *after.waiting)}


def test_an_empty_batch_has_no_step():
    assert plan(Batch(), MODEL, 0) == (Batch(), None)


def test_the_first_token_comes_with_the_end_of_the_prompt():
    (_, first, tokens), *_ = run(batch_of([(50, 2)]))
    assert first.tokens == {0: 50}
    assert [(token.id, token.index) for token in tokens] == [(0, 0)]


def test_a_long_prompt_is_computed_in_chunks():
    steps = run(batch_of([(100, 1)]))
    assert [step.tokens[0] for _, step, _ in steps] == [64, 36]
    assert [len(tokens) for _, _, tokens in steps] == [0, 1]


def test_a_step_costs_what_the_model_says():
    # 50 prompt tokens of one sequence, nothing in memory yet; then one token of it with 50 in memory
    steps = run(batch_of([(50, 2)]))
    first_s, second_s = steps[0][1].ends_s, steps[1][1].ends_s
    assert first_s == pytest.approx(0.01 + 0.001 + 50 * 0.00001)
    assert second_s - first_s == pytest.approx(0.01 + 0.001 + 50 * 0.0001)


def test_slow_stretches_the_step():
    batch = batch_of([(50, 2)])
    _, normal = plan(batch, MODEL, 1.0)
    _, slow = plan(batch, MODEL, 1.0, slow=2.5)
    assert normal is not None
    assert slow is not None
    assert slow.ends_s - 1.0 == pytest.approx(2.5 * (normal.ends_s - 1.0))


def test_more_than_the_sequence_limit_wait_in_order():
    planned, _ = plan(batch_of([(1, 5)] * 5), MODEL, 0)
    assert [sequence.id for sequence in planned.waiting] == [3, 4]


def test_a_prompt_without_kv_space_waits():
    planned, _ = plan(batch_of([(60, 5), (150, 5)]), Model(max_sequences=8, max_step_tokens=500, kv_tokens=200), 0)
    assert [sequence.id for sequence in planned.waiting] == [1]


def test_the_youngest_is_put_back_and_computed_again_when_space_ends():
    model = Model(max_sequences=8, max_step_tokens=500, kv_tokens=100)
    steps = run(batch_of([(45, 30), (45, 30)]), model)
    put_back = [planned for planned, _, _ in steps if any(one.id == 1 and one.generated for one in planned.waiting)]
    assert put_back
    assert all(one.computed == 0 for planned in put_back for one in planned.waiting)
