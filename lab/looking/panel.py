"""The lab's live table, from the first second to the last: what is being done, how far it is, and every pod.

On a terminal it stands below all that is said and is drawn again and again; into a pipe go the steps as lines and now
and then how far a long one is. Owns when to draw; refuses to know what the steps do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab import wire
from lab.contests import summary
from lab.contests.load import Progress
from lab.looking import watch
from lab.looking.screen import PIPE_INTERVAL_S, Screen

REDRAW_S = 0.5
BAR_PLACES = 20


@dataclass(slots=True)
class _Step:
    number: int
    what: str
    began_s: float
    said_s: float | None = None
    progress: Progress | None = None  # of the load, if the step is one


class Panel:
    """`pods` are the names to show, `notes` what is particular about them, `steps` how many there will be."""

    def __init__(self, screen: Screen, pods: Sequence[str], notes: Mapping[str, str], steps: int) -> None:
        self._screen = screen
        self._pods = pods
        self._notes = notes
        self._steps = steps
        self._step: _Step | None = None
        self._page = ""  # the controller's metrics, as last read

    def begin(self, what: str, now_s: float, progress: Progress | None = None, short: bool = False) -> None:
        """The next step: shown at once. One that is a load has its progress; a short one is no line in a pipe."""
        number = self._step.number + 1 if self._step else 1
        self._step = _Step(number, what, now_s, progress=progress)
        if not (self._screen.live or progress or short):
            self._screen.say(f"... {what}")
        self.draw(now_s)

    def say(self, lines: Sequence[str] = ("",)) -> None:
        """Lines that stay, above the table."""
        self._screen.erase()
        for line in lines:
            self._screen.say(line)

    def keep(self, now_s: float) -> None:
        """Draws once more and leaves it standing."""
        if self._screen.live:
            self.draw(now_s)
        self._screen.leave()

    def end(self) -> None:
        """Takes the table away; nothing is drawn until the next step."""
        self._screen.erase()
        if self._step:
            self._step = _Step(self._step.number, "", 0.0)

    async def run(self, host: str, port: int) -> None:
        """Draws for ever, with what the controller at this address says once it is there."""
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(wire.CallError):  # not yet there, or late by a moment
                self._page = (await wire.get(host, port, "/metrics")).decode(errors="replace")
            self.draw(clock())
            await asyncio.sleep(REDRAW_S)

    def draw(self, now_s: float) -> None:
        step = self._step
        if step is None or not step.what:
            return
        sent = step.progress.by_pod if step.progress else {}
        rows = watch.rows(self._page, self._pods, sent)
        head = f"{self._bar(step)} {step.number}/{self._steps} {self._head(step, now_s)}"
        if self._screen.live:
            self._screen.draw([head, *watch.lines(rows, self._notes)])
        elif self._is_due(step, now_s):
            step.said_s = now_s
            told = f"{self._head(step, now_s)}; {watch.short(rows)}"
            self._screen.say(told if step.progress else f"    {self._head(step, now_s)}")

    @staticmethod
    def _is_due(step: _Step, now_s: float) -> bool:
        """Whether a pipe shall hear of it again; of a load at once."""
        if step.said_s is None and step.progress is not None:
            return True
        return now_s - (step.said_s or step.began_s) >= PIPE_INTERVAL_S

    def _bar(self, step: _Step) -> str:
        """How much of all is done; a step that cannot tell counts when it is over."""
        progress = step.progress
        part = progress.ended / progress.total if progress and progress.total else 0.0
        done = round(BAR_PLACES * (step.number - 1 + part) / self._steps)
        return f"[{'#' * done}{'-' * (BAR_PLACES - done)}]"

    @staticmethod
    def _head(step: _Step, now_s: float) -> str:
        progress = step.progress
        if progress is None:
            return f"{step.what}: {now_s - step.began_s:.1f} s"
        head = (
            f"{step.what}: {progress.sent}/{progress.total} sent, {progress.ended} answered, {progress.failed} failed"
        )
        ttfts = [result.ttft_s for result in progress.results if result.ttft_s is not None]
        p99_s = summary.quantile(ttfts, 0.99)
        return head if p99_s is None else f"{head}, TTFT p99 so far {p99_s * 1e3:.0f} ms"
