"""What is seen of pods from elsewhere: the kernel's counts by an agent's stream, and engines' own pages by scraping.

Both show the past: a view gives the state at its last tick that has arrived. Pods write down each change; views read on
from where they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from bench.policy.engine import Engine
from controller.policies.fleet import Array

MEANS_S = 2.0  # gaps and first tokens that the means are of, as in the agent
STEPS_S = 2.0  # gaps that the lower quartile is of
RENEWED_S = 0.25  # time between two looks at them

NAN = float("nan")


@dataclass(slots=True, eq=False)
class Pod:
    """A pod: its engine, and what its node's kernel and its own page would say, with the times of each change."""

    engine: Engine
    one_way_s: float = 0.0015
    loss: float = 0.0
    gone_dark: bool = False  # nothing sent to it arrives
    in_flight: int = 0
    waiting: int = 0
    busy_since_s: float = 0.0  # since when something is in flight without a break
    answered: int = 0  # answers that ever began
    counts: list[tuple[float, int, int, int]] = field(default_factory=lambda: [(0.0, 0, 0, 0)])  # with their time
    pages: list[tuple[float, int, int, float]] = field(default_factory=lambda: [(0.0, 0, 0, 0.0)])
    first_tokens: list[tuple[float, float]] = field(default_factory=list)  # (time, time to it)
    page_frozen: bool = False

    def count(self, now_s: float, in_flight: int, waiting: int, answered: int = 0) -> None:
        if not self.in_flight and in_flight:
            self.busy_since_s = now_s
        self.in_flight += in_flight
        self.waiting += waiting
        self.answered += answered
        self.counts.append((now_s, self.in_flight, self.waiting, self.answered))

    def note_page(self, now_s: float) -> None:
        if not self.page_frozen:
            engine = self.engine
            self.pages.append((now_s, len(engine.running), len(engine.waiting), engine.kv_usage))

    def progress_s(self, now_s: float) -> float:
        """When a byte of an answer last left it, or it began to owe one."""
        return max(self.engine.answering(now_s), self.busy_since_s)


class KernelView:
    """The agents' streams as all pickers get them: one snapshot each `period_s`, `delay_s` later."""

    ROWS = ("in_flight", "waiting", "kernel_at_s", "gap_s", "low_gap_s", "ttft_s", "srtt_s", "answered")

    def __init__(self, pods: Sequence[Pod], period_s: float = 0.02, delay_s: float = 0.002) -> None:
        self.rows: Array = np.full((len(self.ROWS), len(pods)), NAN)
        self.dead = False  # the agent says nothing any more
        self.lie: Callable[[], tuple[float, float]] | None = None  # in flight and waiting that it claims for a pod
        self.stuck = False  # counts stay what they were
        self.at_s = -math.inf
        self._pods = pods
        self._period_s = period_s
        self._delay_s = delay_s
        self._next = [0] * len(pods)
        self._renewed_s = -math.inf
        self._recent = [(0, 0, 0)] * len(pods)  # where windows begin: steps, gaps, first tokens

    def refresh(self, now_s: float) -> bool:
        """Takes the last snapshot that has arrived by now; whether it is another one."""
        at_s = math.floor((now_s - self._delay_s) / self._period_s) * self._period_s
        if at_s <= self.at_s or self.dead:
            return False
        self.at_s = at_s
        rows = self.rows
        rows[2] = at_s
        for index, pod in enumerate(self._pods):
            if not self.stuck:
                in_flight, waiting, rows[7, index] = self._counts(index, pod, at_s)
                rows[0, index], rows[1, index] = self.lie() if self.lie else (in_flight, waiting)
            rows[6, index] = 2 * pod.one_way_s
        if at_s - self._renewed_s >= RENEWED_S:
            self._renewed_s = at_s
            for index, pod in enumerate(self._pods):
                self._renew(index, pod, at_s)
        return True

    def _counts(self, index: int, pod: Pod, at_s: float) -> tuple[int, int, int]:
        changes, position = pod.counts, self._next[index]
        while position + 1 < len(changes) and changes[position + 1][0] <= at_s:
            position += 1
        self._next[index] = position
        _, in_flight, waiting, answered = changes[position]
        return in_flight, waiting, answered

    def _renew(self, index: int, pod: Pod, at_s: float) -> None:
        """Means stay as they were while nothing new ends."""
        gaps, firsts = pod.engine.gaps, pod.first_tokens
        step, gap, first = self._recent[index]
        step, gap = _since(gaps, step, at_s - STEPS_S), _since(gaps, gap, at_s - MEANS_S)
        first = _since(firsts, first, at_s - MEANS_S)
        self._recent[index] = (step, gap, first)
        if gap < len(gaps):
            self.rows[3, index] = sum(number * mean for _, number, mean in gaps[gap:]) / _total(gaps[gap:])
        if step < len(gaps):
            self.rows[4, index] = _quartile(sorted((mean, number) for _, number, mean in gaps[step:]))
        if first < len(firsts):
            self.rows[5, index] = sum(time_s for _, time_s in firsts[first:]) / (len(firsts) - first)


def _since(records: Sequence[tuple[Any, ...]], position: int, time_s: float) -> int:
    """The first record of that time or later, from a position on."""
    while position < len(records) and records[position][0] < time_s:
        position += 1
    return position


def _total(gaps: Sequence[tuple[float, int, float]]) -> int:
    return sum(number for _, number, _ in gaps)


def _quartile(ordered: Sequence[tuple[float, int]]) -> float:
    seen, total = 0, sum(number for _, number in ordered)
    for value, number in ordered:
        seen += number
        if seen * 4 >= total:
            return value
    return NAN


class PageView:
    """Engines' pages as one picker scrapes them, each engine at its own phase; a page shows the time it was made."""

    ROWS = ("running", "queued", "kv_usage", "engine_at_s", "kv_tokens")

    def __init__(self, pods: Sequence[Pod], period_s: float, rng: Random, delay_s: float = 0.002) -> None:
        self.rows: Array = np.full((len(self.ROWS), len(pods)), NAN)
        self._pods = pods
        self._period_s = period_s
        self._delay_s = delay_s
        self._phase_s = [rng.random() * period_s for _ in pods]
        self._next = [0] * len(pods)
        self._due_s = 0.0

    def refresh(self, now_s: float) -> list[int]:
        """Takes the pages that have arrived by now; returns whose."""
        if now_s < self._due_s:
            return []
        renewed = []
        self._due_s = math.inf
        for index, pod in enumerate(self._pods):
            since_s = now_s - self._delay_s - self._phase_s[index]
            at_s = math.floor(since_s / self._period_s) * self._period_s + self._phase_s[index]
            self._due_s = min(self._due_s, at_s + self._period_s + self._delay_s)
            if at_s >= 0 and at_s != self.rows[3, index]:
                self._take(index, pod, at_s)
                renewed.append(index)
        return renewed

    def _take(self, index: int, pod: Pod, at_s: float) -> None:
        pages, position = pod.pages, self._next[index]
        while position + 1 < len(pages) and pages[position + 1][0] <= at_s:
            position += 1
        self._next[index] = position
        _, running, waiting, usage = pages[position]
        self.rows[:, index] = (running, waiting, usage, at_s, pod.engine.gpu.kv_tokens)
