"""Whether an endpoint still answers, judged from its kernel signal alone. Pure: time is an argument.

A hung engine answers nothing, keeps its connections and its /healthz. The tell is: requests in flight, and no byte of
any answer for much longer than is usual for this very pod.
"""

from __future__ import annotations

from enum import StrEnum

from controller.model import KernelSignal

# While something streams, a gap this many times the usual one, but no less than STREAM_FLOOR_S (an engine may hold all
# its streams for one long prefill), is a stall.
STREAM_FLOOR_S = 0.3
STREAM_FACTOR = 10.0
# While every request waits for its first token, this many times what is usual or what its prompts should take.
WAITING_FACTOR = 3.0
# A stalled pod whose clients gave up looks idle. It gets nothing for so long, then one request to prove itself; each
# time that fails, it is left alone for twice as long.
SUSPECT_S = 1.0
SUSPECT_MOST_S = 30.0

FOREVER = float("inf")


class State(StrEnum):
    FINE = "fine"
    STALLED = "stalled"  # in flight, and silent for too long
    SUSPECT = "suspect"  # was stalled, then its requests went without a byte of answer
    TRIAL = "trial"  # suspect for long enough: one request at a time until it answers


def limit_s(kernel: KernelSignal, predicted_s: float = 0.0) -> float:
    """The silence after which an endpoint with requests in flight counts as stalled.

    predicted_s: what the prompts that wait there should take.
    """
    limit = max(STREAM_FLOOR_S, STREAM_FACTOR * (kernel.usual_gap_s or 0.0))
    if kernel.in_flight > kernel.waiting:
        return limit
    return max(limit, WAITING_FACTOR * max(kernel.usual_ttft_s or 0.0, predicted_s))


def stalls_at_s(kernel: KernelSignal, predicted_s: float = 0.0) -> float:
    """When the endpoint counts as stalled if nothing new is heard of it; between frames our own clock goes on."""
    if kernel.in_flight == 0 or kernel.progress_at_s is None:
        return FOREVER
    return kernel.progress_at_s + limit_s(kernel, predicted_s)


class Vigil:
    """The health of one endpoint over time."""

    __slots__ = ("_pause_s", "_predicted_s", "_progress", "_until_s", "state")

    def __init__(self) -> None:
        self.state = State.FINE
        self._progress = 0
        self._until_s = FOREVER
        self._pause_s = SUSPECT_S
        self._predicted_s = 0.0

    def watch(self, kernel: KernelSignal | None, now: float, predicted_s: float = 0.0) -> State:
        """To be called with each new signal and when due_s() has come; None: nothing fresh is known.

        predicted_s: what the prompts that wait there should take.
        """
        self._predicted_s = predicted_s
        self.state = State.FINE if kernel is None else self._next(kernel, now)
        return self.state

    def _next(self, kernel: KernelSignal, now: float) -> State:
        if kernel.progress != self._progress:  # a byte came, or another pod took the place
            self._progress = kernel.progress
            self.state = State.FINE
            self._pause_s = SUSPECT_S
        if now >= stalls_at_s(kernel, self._predicted_s):
            return State.STALLED
        if self.state is State.STALLED:
            self._until_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, SUSPECT_MOST_S)
            return State.SUSPECT
        if self.state is State.SUSPECT and now >= self._until_s:
            return State.TRIAL
        return self.state

    def due_s(self, kernel: KernelSignal | None) -> float:
        """When the state may change by itself."""
        if kernel is None or self.state is State.STALLED:
            return FOREVER
        return min(stalls_at_s(kernel, self._predicted_s), self._until_s if self.state is State.SUSPECT else FOREVER)
