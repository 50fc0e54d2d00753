"""Signals that lie, requests that are odd, pools that are: a pick is always made, or the reason is a status."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.catalog.classes import NO_ENDPOINT
from controller.choosing.picker import Pick, Picker
from controller.choosing.room import Room
from controller.endpoints.table import Table
from controller.model import EngineScraped, EngineSignal, KernelSignal, Reason, Request
from controller.policies.prefix import LIMIT_BYTES
from controller.policies.registry import POLICIES
from controller.requests.paths import Kind
from tests.controller.known import engine, frame, kernel, pod, table

ASK = Request("/v1/completions", "m", None)
MOST = (1 << 32) - 1
EVERY = sorted(POLICIES)


def pick(made: Table, policy: str = "sonde", request: Request = ASK, now: float = 0.0) -> Pick | None:
    return Picker(made, POLICIES[policy], Random(1)).pick(request, now)


@pytest.mark.parametrize("policy", EVERY)
def test_no_endpoints_is_a_503(policy: str) -> None:
    picker = Picker(table(), POLICIES[policy], Random(1))

    assert picker.pick(ASK, 0.0) is None
    assert Room(picker).enter(ASK, 0.0) is NO_ENDPOINT
    assert NO_ENDPOINT.status == 503


@pytest.mark.parametrize("policy", EVERY)
def test_the_only_endpoint_is_taken(policy: str) -> None:
    chosen = pick(table(pod("a")), policy)

    assert chosen is not None
    assert chosen.row.picks == {Reason.ONLY: 1}


@pytest.mark.parametrize("policy", EVERY)
def test_where_all_are_stalled_one_is_taken(policy: str) -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    made.apply(frame({name: kernel(3) for name in "abc"}, full=True, at=0.0), 0.0)
    for step in range(1, 6):
        made.apply(frame({}, at=step * 0.1), step * 0.1)
    chosen = pick(made, policy, now=0.5)

    assert all(row.vigil.state == "stalled" for row in made.rows)
    assert chosen is not None


absurd = st.sampled_from([0, 1, 7, MOST, 1 << 62])
ages = st.sampled_from([0.0, 0.1, 0.3, 5.0, 1e9])
times = st.sampled_from([None, 0.0, 1e-9, 0.02, 1e6, float("nan"), float("inf"), -1.0])
kernels = st.builds(
    KernelSignal,
    true_at_s=ages.map(lambda age: 100.0 - age),
    in_flight=absurd,
    waiting=absurd,
    started=absurd,
    progress=absurd,
    progress_at_s=st.none() | ages.map(lambda age: 100.0 - age),
    usual_ttft_s=times,
    usual_gap_s=times,
    low_gap_s=times,
    srtt_s=times,
    completed=absurd,
    failed=absurd,
    chunks=absurd,
)
engines = st.builds(
    EngineSignal,
    true_at_s=ages.map(lambda age: 100.0 - age),
    engine=st.just("vllm"),
    running=st.none() | absurd,
    waiting=st.none() | absurd,
    kv_cache_usage=st.none() | st.sampled_from([0.0, 1.0, 0.99]),
    kv_blocks=st.none() | absurd,
    kv_block_tokens=st.none() | absurd,
)


@given(
    st.sampled_from(EVERY),
    st.lists(st.tuples(st.sampled_from("abc"), kernels, st.none() | engines), max_size=12),
    st.sampled_from([100.0, 100.2, 101.0, 200.0]),
)
def test_whatever_agents_and_engines_say_one_is_taken(
    policy: str, said: list[tuple[str, KernelSignal, EngineSignal | None]], now: float
) -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    picker = Picker(made, POLICIES[policy], Random(1))
    for name, signal, page in said:
        made.apply(frame({name: signal}, at=100.0), 100.0)
        if page:
            made.apply(EngineScraped(f"10.0.0.{'abc'.index(name) + 1}:8000", page), 100.0)
        assert picker.pick(ASK, 100.0) is not None

    assert picker.pick(ASK, now) is not None
    assert len(picker.ranks(now)) == 3
    assert all(row.ledger.queued_tokens >= 0 for row in made.rows)


def test_a_kernel_that_waits_for_more_than_it_has_is_held_to_what_it_has() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1, waiting=900), "b": kernel(40, waiting=30)}, full=True, at=0.0), 0.0)

    chosen = pick(made)
    assert chosen is not None
    assert chosen.row.endpoint.pod == "a"


def test_a_frozen_agent_is_not_believed_though_it_goes_on_talking() -> None:
    """Its frames come, and tell how old what they tell is."""
    made = table(pod("a"), pod("b"))
    for step in range(40):
        now = step * 0.1
        stuck = {"a": kernel(0, at=0.0), "b": kernel(9, at=0.0)}
        made.apply(frame(stuck, full=step % 10 == 0, at=0.0), now)

    assert [row.source for row in made.rows] == ["own", "own"]


@pytest.mark.parametrize("size", [2 << 20, 9 << 20])
def test_a_prompt_of_megabytes_is_priced_by_its_length(size: int) -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1), "b": kernel(1)}, full=True, at=0.0), 0.0)
    body = json.dumps({"model": "m", "prompt": "x" * size}).encode()
    picker = Picker(made, rng=Random(1))
    first = picker.pick(replace(ASK, kind=Kind.COMPLETIONS, body=body), 0.0)
    assert first is not None
    first.end(0.0)
    again = picker.pick(replace(ASK, kind=Kind.COMPLETIONS, body=body), 0.0)

    assert again is not None
    assert first.row is again.row
    assert first.reservation.uncached == pytest.approx(size / 4, rel=0.01)
    assert again.reservation.uncached == pytest.approx((size - min(size, LIMIT_BYTES)) / 4, abs=1100)


@pytest.mark.parametrize("limit", [None, 0, 1, 16, 10**8, 10**12, -5, "many"])
def test_unknown_and_odd_lengths_of_answers_are_no_matter(limit: object) -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(5), "b": kernel(5)}, full=True, at=0.0), 0.0)
    body = json.dumps({"model": "m", "prompt": "hi", "max_tokens": limit}).encode()
    picker = Picker(made, rng=Random(1))

    assert picker.pick(replace(ASK, kind=Kind.COMPLETIONS, body=body), 0.0) is not None
    assert np.isfinite(picker.memory.price_s).all()


def test_an_engine_whose_cache_is_stuck_full_gets_its_share_again() -> None:
    """A gauge that stays at 99 % after aborts would keep requests away for ever."""
    made = table(pod("a"), pod("b"))
    picks = []
    for step in range(200):
        now = step * 0.1
        made.apply(frame({"a": kernel(0, at=now), "b": kernel(2, at=now)}, full=True, at=now), now)
        stuck = replace(engine(3, 0, at=now), kv_cache_usage=0.99)
        made.apply(EngineScraped("10.0.0.1:8000", stuck), now)
        chosen = pick(made, now=now)
        assert chosen is not None
        picks.append(chosen.row.endpoint.pod)
        chosen.drop(now)

    assert set(picks[:50]) == {"b"}
    assert picks[60:].count("a") > 50
