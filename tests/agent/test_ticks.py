"""When tasks look next."""

from __future__ import annotations

import asyncio

import pytest

from agent.ticks import next_tick, tick
from tests.conftest import run


@pytest.mark.parametrize(
    ("now_s", "at_s"),
    [(8.0, 8.125), (8.001, 8.125), (8.06, 8.125), (8.07, 8.25), (8.124, 8.25), (8.1250001, 8.25)],
)
def test_the_next_look_is_at_the_multiple_nearest_to_one_period_on(now_s: float, at_s: float) -> None:
    assert next_tick(now_s, 0.125) == at_s


def test_looks_of_several_periods_come_together() -> None:
    pulses = {at * 0.125 for at in range(800, 900)}
    assert {next_tick(100.3 + at, 0.5) for at in range(5)} < pulses
    assert {next_tick(100.3 + at, 1.0) for at in range(5)} < pulses


def test_a_tick_waits_half_a_period_at_least() -> None:
    async def body() -> None:
        clock = asyncio.get_running_loop().time
        for _ in range(5):
            began = clock()
            await tick(0.02)
            assert clock() - began >= 0.01

    run(body())
