"""Requests that wait for room, on a clock of our own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from controller.catalog.classes import LATE, NO_ENDPOINT, SHED, Refusal
from controller.choosing.picker import Pick, Picker
from controller.choosing.room import FLOW_MOST, Room
from controller.endpoints.table import Table
from controller.model import ClusterChanged, Request, Resolved
from controller.policies.admission import Budgets, Waiter
from tests.conftest import run
from tests.controller.known import cluster, frame, kernel, pod, table

BUDGETS = Budgets(ttft_s=2.0)


@dataclass
class Site:
    """A pool of one pod, a room before it, and the clock of both."""

    now: float = 0.0
    table: Table = field(default_factory=lambda: table(pod("a")))
    refusal: Refusal | None = None

    def __post_init__(self) -> None:
        self.picker = Picker(self.table, rng=Random(1), budgets=BUDGETS)
        self.room = Room(self.picker, lambda *_: self.refusal, lambda: self.now)
        self.hear(0)

    def hear(self, waiting: int) -> None:
        """The kernel counts so many requests in the pod's queue."""
        row = self.table.rows[0]
        started = (row.kernel.started if row.kernel else 0) + 1
        waiting += started % 2 if waiting else 0  # counts that stand still are not believed
        started += max(0, waiting + 4 - (row.kernel.in_flight if row.kernel else 0))
        signal = kernel(waiting + 4, at=self.now, waiting=waiting, started=started, progress=started)
        self.table.apply(frame({"a": signal}, full=True, at=self.now), self.now)

    def fill(self) -> None:
        self.hear(400)

    def enter(self, priority: int = 0, flow: str = "") -> Pick | Refusal | Waiter:
        request = Request("/v1/completions", "m", None, flow=flow, resolved=Resolved("m", "m", None, priority, ""))
        return self.room.enter(request, self.now)

    async def pass_by(self, seconds: float, waiting: int) -> None:
        """Time goes on by tenths, with the pod heard each time, and the room looks twice."""
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            self.hear(waiting)
            await asyncio.sleep(0.03)


def waiting(site: Site, *priorities: int) -> list[asyncio.Task[Pick | Refusal]]:
    tasks = []
    for priority in priorities:
        waiter = site.enter(priority)
        assert isinstance(waiter, Waiter)
        tasks.append(asyncio.ensure_future(site.room.wait(waiter)))
    return tasks


def test_with_room_a_request_goes_at_once() -> None:
    async def body() -> None:
        site = Site()
        assert all(isinstance(site.enter(priority), Pick) for priority in (1, 0, -1))
        assert site.room.waiting == 0

    run(body())


def test_without_room_it_waits_and_goes_when_there_is_some() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        (task,) = waiting(site, 0)
        await site.pass_by(0.3, waiting=400)
        assert not task.done()
        await site.pass_by(0.2, waiting=0)
        assert isinstance(await task, Pick)
        assert site.room.waiting == 0

    run(body())


def test_the_important_go_first_and_what_is_late_is_refused() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        low, high = waiting(site, -1, 1)
        await site.pass_by(1.2, waiting=400)
        assert await low is LATE
        assert not high.done()
        await site.pass_by(2.2, waiting=400)
        assert await high is LATE
        assert LATE.status == 429
        assert {"retry-after", "x-llm-d-request-dropped-reason"} <= dict(LATE.headers).keys()

    run(body())


def test_nobody_overtakes_who_is_as_important() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        (first,) = waiting(site, 0)
        site.hear(0)
        assert isinstance(site.enter(0), Waiter)
        assert isinstance(site.enter(1), Pick)
        await site.pass_by(0.1, waiting=0)
        assert isinstance(await first, Pick)

    run(body())


def test_a_gate_that_is_shut_holds_back_too_and_says_why() -> None:
    async def body() -> None:
        site = Site(refusal=SHED)
        (task,) = waiting(site, -1)
        await site.pass_by(1.2, waiting=0)
        assert await task is SHED
        site.refusal = None
        assert isinstance(site.enter(-1), Pick)

    run(body())


def test_without_a_budget_nobody_waits() -> None:
    async def body() -> None:
        site = Site()
        site.picker.budgets = Budgets()
        site.fill()
        assert isinstance(site.enter(-1), Pick)
        site.refusal = SHED
        assert site.enter(-1) is SHED

    run(body())


@pytest.mark.parametrize("late", [False, True])
def test_who_goes_away_leaves_nothing(late: bool) -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        (task,) = waiting(site, 0)
        await asyncio.sleep(0)
        if late:  # it has its pick, and has not been told yet
            site.now += 0.1
            site.hear(0)
            site.room._let_in(site.now)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert site.room.waiting == 0
        assert site.table.rows[0].ledger.own == 0

    run(body())


def test_a_pool_that_empties_while_one_waits_is_a_503() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        (task,) = waiting(site, 0)
        site.table.apply(ClusterChanged(cluster()), site.now)
        assert await task is NO_ENDPOINT

    run(body())


def test_without_kernels_nobody_is_held_back() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        site.now += 10.0
        assert isinstance(site.enter(-1), Pick)

    run(body())


def test_a_gateway_that_does_not_wait_gets_its_answer_in_time() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        request = Request("/v1/completions", "m", None, resolved=Resolved("m", "m", None, 1, ""))
        waiter = site.room.enter(request, site.now, hurried=True)
        assert isinstance(waiter, Waiter)
        task = asyncio.ensure_future(site.room.wait(waiter))
        await site.pass_by(0.2, waiting=400)
        assert await task is LATE

    run(body())


def test_a_fault_of_ours_reaches_everybody_who_waits() -> None:
    """The pool's failureMode answers it; a refusal would take it for a lack of room."""

    async def body() -> None:
        site = Site()
        site.fill()
        tasks = waiting(site, 0, 1)
        site.room._gate = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
        for task in tasks:
            with pytest.raises(ZeroDivisionError):
                await task
        assert site.room.waiting == 0

    run(body())


def test_of_a_flows_name_its_beginning_counts() -> None:
    async def body() -> None:
        site = Site()
        assert isinstance(site.enter(0, "x" * 100_000), Pick)
        assert {len(flow) for _, flow in site.room._line._given} == {FLOW_MOST}

    run(body())


def test_what_is_known_of_who_waits_is_of_the_pool_as_it_is() -> None:
    async def body() -> None:
        site = Site()
        site.fill()
        lora = Request("/v1/completions", "m", None, resolved=Resolved("m", "m", "lora", 1, ""))
        waiter = site.room.enter(lora, site.now)
        assert isinstance(waiter, Waiter)
        task = asyncio.ensure_future(site.room.wait(waiter))
        site.table.apply(ClusterChanged(cluster(pod("b"), pod("c"), pod("d"))), site.now)
        assert isinstance(await task, Pick)
        assert len(waiter.what.job.adapter_wait_s) == 3

    run(body())
