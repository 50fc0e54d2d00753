"""Copies the slots' scalars out of shared memory each interval, and tells the event loop when they changed.

In a thread: to wake a thread and compare the copy costs half of what waking the event loop costs, and fifty wakes a
second are most of what an agent with idle pods does. Nothing is queued: who is told takes the latest copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Scalars(Protocol):
    """Those of some slots, one element a slot, in memory that others write."""

    def tobytes(self) -> bytes: ...
    def __len__(self) -> int: ...


class Memory(Protocol):
    def scalars(self, count: int) -> Scalars:
        """The scalars of the first `count` slots."""
        ...


# the copied scalars, and the time before which they were not copied, in ns; the same bytes object while none changed
Sample = tuple[bytes, int]


class Sampler:
    """The thread's loop is kept short on purpose: what runs every 20 ms finds the processor's caches cold."""

    def __init__(self, memory: Memory, interval_s: float) -> None:
        self._memory = memory
        self._interval_s = interval_s
        self._told = False
        self._ended = False
        self._source = memory.scalars(0)
        self.latest: Sample = (b"", 0)
        self.rows_sampled = 0

    def follow(self, count: int) -> None:
        """Sets how many slots to copy, counted from the first, and copies them."""
        self._source = self._memory.scalars(count)
        self.sample()

    def sample(self) -> None:
        at_ns = time.monotonic_ns()
        self.latest = (self._source.tobytes(), at_ns)

    async def run(self, changed: Callable[[], None]) -> None:
        """Samples until cancelled; calls `changed` in the event loop, at most once until take()."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._sample_forever, lambda: loop.call_soon_threadsafe(changed))
        finally:
            self._ended = True

    def _sample_forever(self, tell: Callable[[], object]) -> None:
        # a plain sleep: a wait that could be ended early takes a fifth more processor time
        sleep, interval_s, clock_ns = time.sleep, self._interval_s, time.monotonic_ns
        while not self._ended:
            at_ns = clock_ns()
            source = self._source
            rows, before = source.tobytes(), self.latest[0]
            self.rows_sampled += len(source)
            if rows == before:
                self.latest = (before, at_ns)
            else:
                self.latest = (rows, at_ns)
                if not self._told:
                    self._told = True
                    tell()
            sleep(interval_s)

    def age_s(self, now_ns: int) -> float | None:
        """Of the latest sample; None before the first."""
        return max(0, now_ns - self.latest[1]) / 1e9 if self.latest[1] else None

    def take(self) -> Sample:
        """The latest sample; a change after it will be told."""
        self._told = False
        return self.latest
