"""Keeps the kernel programs from costing more than they may: what to leave out, in which order, and when to resume.

The decision is pure. The programs' own run time is the kernel's to tell, and timing costs itself, so it is taken in
short samples.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.kernel import bpfsys, layout
from agent.kernel.programs import Programs

log = logging.getLogger(__name__)

SAMPLE_S = 1.0  # how long programs are timed
EVERY_S = 30.0  # between the begins of two samples
RESUME_BELOW = 0.4  # of the limit: the last thing shed must not be what brings the cost back above
# What is left out, first to last: what serves the fewest, then what the picker needs least.
ORDER = ("http2", "calls", "turns", "histograms")
_BITS = {name: layout.NUMBERS[f"SONDE_SHED_{name.upper()}"] for name in ORDER}


@dataclass(frozen=True, slots=True)
class State:
    shed: int = 0  # how many of ORDER are left out
    calm: int = 0  # samples in a row that were far below the limit


CALM_SAMPLES = 4


def decide(state: State, share: float, limit: float) -> State:
    """One more is left out for each sample above the limit; one comes back after CALM_SAMPLES far below it."""
    if share > limit:
        return State(min(state.shed + 1, len(ORDER)))
    if share > limit * RESUME_BELOW or not state.shed:
        return State(state.shed)
    if state.calm + 1 < CALM_SAMPLES:
        return State(state.shed, state.calm + 1)
    return State(state.shed - 1)


def bits(shed: int) -> int:
    return sum(_BITS[name] for name in ORDER[:shed])


def run_time_ns(programs: Programs) -> int:
    return sum(runs.time_ns or 0 for runs in programs.values() if runs is not None)


class Maps(Protocol):
    """Where the programs are told what to leave out."""

    @property
    def shed(self) -> int: ...
    def set_shed(self, bits: int) -> None: ...


class Governor:
    """Owns the samples and says what it did; `read` gives the run times. Goes on from what is left out by now."""

    def __init__(self, limit: float, read: Callable[[], Programs], maps: Maps) -> None:
        self._limit = limit
        self._read = read
        self._maps = maps
        self._state = State(sum(bool(maps.shed & _BITS[name]) for name in ORDER))
        self._timing: tuple[int, int, int] | None = None  # descriptor, run time and clock at the sample's begin
        self.share: float | None = None

    @property
    def shed(self) -> tuple[str, ...]:
        return ORDER[: self._state.shed]

    async def run(self) -> None:
        """Samples until cancelled; ends at once where nothing bounds the cost, or the kernel does not let us."""
        if not self._limit:
            self._maps.set_shed(0)
            return
        while self.begin(time.monotonic_ns()):
            try:
                await asyncio.sleep(SAMPLE_S)
            finally:
                self.end(time.monotonic_ns())
            await asyncio.sleep(EVERY_S - SAMPLE_S)

    def begin(self, now_ns: int) -> bool:
        """Starts a sample. False where there are no programs, or the kernel does not let us, which is said."""
        if not self._read():
            return False
        try:
            descriptor = bpfsys.time_programs()
        except OSError as error:
            log.warning("the kernel programs are not timed, so nothing bounds their cost: %s", error.strerror)
            return False
        self._timing = descriptor, run_time_ns(self._read()), now_ns
        return True

    def end(self, now_ns: int) -> None:
        """Ends the sample and acts on it."""
        if self._timing is None:
            return
        descriptor, before_ns, since_ns = self._timing
        self._timing = None
        spent_ns = run_time_ns(self._read()) - before_ns
        os.close(descriptor)
        self.act(spent_ns / max(1, now_ns - since_ns))

    def act(self, share: float) -> None:
        self.share = share
        before, self._state = self._state.shed, decide(self._state, share, self._limit)
        if self._state.shed == before:
            return
        self._maps.set_shed(bits(self._state.shed))
        what = ", ".join(self.shed) or "nothing"
        log.warning(
            "kernel programs took %.1f %% of a core, allowed are %.1f %%: left out is now %s",
            share * 100, self._limit * 100, what,
        )  # fmt: skip
