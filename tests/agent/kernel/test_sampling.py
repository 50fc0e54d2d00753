"""The sampler copies each interval and tells once until its copy is taken."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from agent.kernel.sampling import Sampler
from tests.conftest import run


class Memory:
    """Two slots of one word each."""

    def __init__(self) -> None:
        self.words = np.zeros(2, np.int64)

    def scalars(self, count: int):
        return self.words.view("V8")[:count]


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_change_is_told_and_is_in_the_copy() -> None:
    async def body() -> None:
        memory, told = Memory(), asyncio.Event()
        sampler = Sampler(memory, 0.002)
        sampler.follow(2)
        task = asyncio.create_task(sampler.run(told.set))
        memory.words[1] = 7
        await told.wait()
        assert np.frombuffer(sampler.take()[0], np.int64).tolist() == [0, 7]
        await stopped(task)

    run(body())


def test_it_tells_once_until_the_copy_is_taken() -> None:
    async def body() -> None:
        memory, tellings = Memory(), []
        sampler = Sampler(memory, 0.001)
        sampler.follow(2)
        task = asyncio.create_task(sampler.run(lambda: tellings.append(1)))
        for number in range(1, 6):
            before = sampler.rows_sampled
            memory.words[0] = number
            while sampler.rows_sampled < before + 4:
                await asyncio.sleep(0)
        assert len(tellings) == 1
        assert np.frombuffer(sampler.take()[0], np.int64)[0] == 5
        await stopped(task)

    run(body())


def test_nothing_is_told_while_nothing_changes_yet_the_sample_stays_young() -> None:
    async def body() -> None:
        sampler, tellings = Sampler(Memory(), 0.001), []
        sampler.follow(2)
        rows, first = sampler.latest
        task = asyncio.create_task(sampler.run(lambda: tellings.append(1)))
        while sampler.rows_sampled < 10:
            await asyncio.sleep(0)
        await stopped(task)
        assert tellings == []
        assert sampler.latest[0] is rows
        assert sampler.latest[1] > first
        assert sampler.age_s(sampler.latest[1] + 1_500_000_000) == 1.5

    run(body())


def test_slots_followed_later_are_in_the_next_copy() -> None:
    sampler = Sampler(Memory(), 1)
    assert sampler.take()[0] == b""
    sampler.follow(1)
    assert len(sampler.take()[0]) == 8
    sampler.follow(2)
    assert len(sampler.take()[0]) == 16
