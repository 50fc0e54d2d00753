"""One pod of the lab as the truth bench sees it: its slot, its engine's log, and the ways to send it requests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from random import Random

from agent.kernel.maps import PinnedMaps
from bench.caller import Ask, Caller
from bench.matching import Call, Sample
from lab.engines import truth
from lab.machine.stack import Stack

SAMPLE_S = 0.004
WAIT_S = 5.0
COUNTED = ("started", "first_data", "completed", "client_aborted", "server_aborted", "lost", "chunks", "ttft_ns_sum")
Counts = dict[str, int]


class Pod:
    """One pod: where it answers, what its engine logs, and the slot it is counted in."""

    def __init__(self, index: int, lab: Stack, maps: PinnedMaps, slot: int) -> None:
        place = lab.ground.pods[index]
        self.name, self.host, self.port = place.name, place.ip, lab.ground.ports.engine
        self.control = lab.ground.ports.control
        self._log = lab.home.truth(place.name)
        self._rows = maps.slots.first(slot + 1)
        self._slot = slot

    def counts(self) -> Counts:
        row = self._rows[self._slot]
        return {name: int(row[name]) for name in COUNTED}

    def in_flight(self) -> int:
        return int(self._rows["in_flight"][self._slot])

    async def idle(self) -> None:
        """Waits until nothing is in flight: an abort is counted when its packet comes, not when close() returns."""
        await until(lambda: self.in_flight() == 0, f"{self.name} to have nothing in flight")

    async def records(self, ids: set[str]) -> list[truth.Record]:
        """The engine's records of these requests."""

        def found() -> list[truth.Record]:
            return [record for record in truth.read(self._log)[0] if record.request_id in ids]

        await until(lambda: len(found()) >= len(ids), f"{self.name} to log {len(ids)} requests")
        return found()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for what must come; goes on without it after WAIT_S, so that the table shows what is wrong."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            print(f"waited {WAIT_S:g} s for {what}, in vain", file=sys.stderr)
            return
        await asyncio.sleep(0.002)


async def one_after_the_other(pod: Pod, asks: Sequence[Ask], keep: bool) -> tuple[list[Call], list[Counts]]:
    """Sends requests to one pod, each when the one before is over; what each added to the counts."""
    caller = Caller(pod.host, pod.port, keep)
    calls, added = [], []
    before = pod.counts()
    for ask in asks:
        calls.append(await caller.call(ask))
        if ask.abort_after is not None:
            await pod.idle()
        after = pod.counts()
        added.append(_difference(before, after))
        before = after
    caller.close()
    return calls, added


async def overlapping(pod: Pod, asks: Sequence[Ask], rng: Random, every_s: float) -> tuple[list[Call], list[Counts]]:
    """Sends requests to one pod at random times, `every_s` on average; what all together added to the counts."""
    before = pod.counts()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for ask in asks:
            await asyncio.sleep(rng.expovariate(1 / every_s))
            tasks.append(group.create_task(Caller(pod.host, pod.port, keep=False).call(ask)))
    await pod.idle()
    return [task.result() for task in tasks], [_difference(before, pod.counts())]


def _difference(before: Counts, after: Counts) -> Counts:
    return {name: after[name] - before[name] for name in COUNTED}


async def sample(pod: Pod, into: list[Sample]) -> None:
    while True:
        before_ns = time.monotonic_ns()
        in_flight = pod.in_flight()
        into.append(Sample(before_ns, time.monotonic_ns(), in_flight))
        await asyncio.sleep(SAMPLE_S)
