from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller.gateway.deadlines import Deadline, Deadlines
from tests.conftest import run

LONG_S = 60.0


async def held(deadlines: Deadlines, told: list[Deadline], behind: Callable[[], Awaitable[None]] | None = None) -> str:
    """What becomes of a task that never ends by itself."""
    with deadlines.begin() as deadline:
        told.append(deadline)
        await asyncio.Event().wait()
    if behind is not None:
        await behind()
    return "passed" if deadline.passed else "over"


def test_what_takes_too_long_sees_a_cancellation_and_what_is_behind_it_does_not() -> None:
    async def body() -> None:
        begun: list[Deadline] = []
        tasks = [asyncio.create_task(held(Deadlines(0.01), begun, lambda: asyncio.sleep(0.001))) for _ in range(3)]
        assert await asyncio.gather(*tasks) == ["passed"] * 3

    run(body())


def test_one_timer_ends_all_in_their_order_and_goes_on_with_who_comes_later() -> None:
    async def body() -> None:
        deadlines, begun = Deadlines(0.02), []
        first = asyncio.create_task(held(deadlines, begun))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(held(deadlines, begun))
        assert await first == "passed"
        assert await second == "passed"
        assert begun[0].due_s < begun[1].due_s
        assert await asyncio.create_task(held(deadlines, begun)) == "passed"

    run(body())


def test_what_is_over_is_forgotten_and_not_cancelled() -> None:
    async def body() -> None:
        deadlines = Deadlines(0.005)
        with deadlines.begin() as deadline:
            pass
        await asyncio.sleep(0.02)
        assert not deadline.passed
        assert not deadlines._open

    run(body())


def test_a_cancellation_by_somebody_else_goes_through() -> None:
    async def body() -> None:
        begun: list[Deadline] = []
        task = asyncio.create_task(held(Deadlines(LONG_S), begun))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        both = asyncio.create_task(held(Deadlines(LONG_S), begun))
        await asyncio.sleep(0)
        begun[-1].expire()
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both

    run(body())


def test_a_fault_inside_comes_out() -> None:
    async def body() -> None:
        with pytest.raises(ValueError, match="mine"), Deadlines(LONG_S).begin():
            raise ValueError("mine")

    run(body())


def test_a_deadline_can_be_hurried_and_calmed_before_it_shows() -> None:
    async def body() -> None:
        begun: list[Deadline] = []
        task = asyncio.create_task(held(Deadlines(LONG_S), begun))
        await asyncio.sleep(0)
        begun[0].hurry()
        begun[0].calm()
        await asyncio.sleep(0.001)
        assert not task.done()
        begun[0].hurry()
        assert await task == "passed"

        with Deadlines(LONG_S).begin() as deadline:
            deadline.lift()
            deadline.hurry()
            await asyncio.sleep(0.001)
        deadline.hurry()
        await asyncio.sleep(0.001)

    run(body())


def test_what_must_not_be_cut_off_ends_before_the_time_limit_counts() -> None:
    async def body() -> None:
        steps = []
        limit = Deadlines(60.0).begin()
        with limit:
            limit.hold()
            limit.expire()
            await asyncio.sleep(0)
            steps.append("whole")
            limit.release()
            await asyncio.sleep(0)
            steps.append("cut off")
        assert limit.passed
        assert steps == ["whole"]
        with Deadlines(60.0).begin() as stuck:
            stuck.hold()
            stuck.expire()
            await asyncio.Event().wait()
        assert stuck.passed

    run(body())
