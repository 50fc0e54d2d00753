"""The picks of this controller that are not over yet, for one endpoint. Pure: time is an argument.

A kernel's or engine's count is some milliseconds old, and in that time this controller may have sent ten more
requests. Each pick is therefore a reservation that bridges the gap until the measurement shows the request. Three
questions are asked, one for each kind of measurement:

- `unshown`: picks the kernel cannot have counted yet. Kernel in-flight + unshown is the load. When the kernel's
  `started` counter grew by d, the d oldest reservations made before that reading are taken to be among them. Requests
  of others grow the counter too, so a reservation may leave some milliseconds early; it never stays too long: what
  the kernel has not shown after SHOWN_LIMIT_S never arrived.
- `since(t)`: picks younger than an engine's page.
- `own`: picks that are not over as far as the gateway's streams tell, where nothing is measured.

How a reservation goes: `drop` (the request was never sent: no trace is left), `end` (the stream closed with the
response: it counts no more, but if the kernel has not shown it yet, its start is still to be expected and must not
be taken for a younger one's), `detach` (the stream closed before the response, as in FULL_DUPLEX_STREAMED without
response phases: nobody will tell the end, so `own` forgets it DETACHED_LIMIT_S after the pick).
"""

from __future__ import annotations

from collections import deque
from enum import Enum

SHOWN_LIMIT_S = 2.0
DETACHED_LIMIT_S = 10.0
# From the pick until pod and engine have seen the request: gateway, network, the engine's own step.
ARRIVAL_S = 0.05


class _State(Enum):
    OPEN = "open"
    DETACHED = "detached"
    ENDED = "ended"
    DROPPED = "dropped"


class Reservation:
    """One pick. Give it back to its ledger by exactly one of drop, end, detach; what comes later does nothing."""

    __slots__ = ("ledger", "made_at_s", "shown", "state")

    def __init__(self, ledger: Ledger, made_at_s: float) -> None:
        self.ledger = ledger
        self.made_at_s = made_at_s
        self.state = _State.OPEN
        self.shown = False


class Ledger:
    """The reservations of one endpoint."""

    __slots__ = ("_detached", "_expected", "_open", "_recent", "unshown")

    def __init__(self) -> None:
        self.unshown = 0
        self._open = 0
        self._detached = 0
        self._expected: deque[Reservation] = deque()  # whose start the kernel has not shown, oldest first
        self._recent: deque[Reservation] = deque()  # those of the last DETACHED_LIMIT_S, oldest first

    @property
    def own(self) -> int:
        return self._open + self._detached

    @property
    def open(self) -> int:
        """Of own: those whose stream is open, so that they are in flight for certain."""
        return self._open

    def reserve(self, now: float) -> Reservation:
        made = Reservation(self, now)
        self._open += 1
        self.unshown += 1
        self._expected.append(made)
        self._recent.append(made)
        return made

    def drop(self, made: Reservation) -> None:
        self._leave(made, _State.DROPPED)

    def end(self, made: Reservation) -> None:
        self._leave(made, _State.ENDED)

    def detach(self, made: Reservation, now: float) -> None:
        if made.state is not _State.OPEN:
            return
        if now >= made.made_at_s + DETACHED_LIMIT_S:  # expire() has passed it by
            self.end(made)
            return
        self._open -= 1
        self._detached += 1
        made.state = _State.DETACHED

    def _leave(self, made: Reservation, state: _State) -> None:
        if made.state is not _State.OPEN:
            return
        self._open -= 1
        if not made.shown:
            self.unshown -= 1
        made.state = state

    def show(self, starts: int, until_s: float) -> None:
        """The kernel counted so many more starts up to a time."""
        expected = self._expected
        while starts > 0 and expected and expected[0].made_at_s <= until_s:
            starts -= self._show_oldest()

    def show_all(self, until_s: float) -> None:
        """The kernel counts this endpoint from now on: what is older than its first reading is in that reading."""
        while self._expected and self._expected[0].made_at_s <= until_s - ARRIVAL_S:
            self._show_oldest()

    def _show_oldest(self) -> int:
        """1, or 0 if it was never sent, so that the kernel cannot have counted it."""
        oldest = self._expected.popleft()
        if oldest.state in (_State.OPEN, _State.DETACHED):
            self.unshown -= 1
        oldest.shown = True
        return 0 if oldest.state is _State.DROPPED else 1

    def since(self, true_at_s: float) -> int:
        """Picks that a page true at that time cannot know, and that are not over."""
        count = 0
        for made in reversed(self._recent):
            if made.made_at_s <= true_at_s - ARRIVAL_S:
                break
            count += made.state in (_State.OPEN, _State.DETACHED)
        return count

    def expire(self, now: float) -> None:
        while self._expected and now >= self._expected[0].made_at_s + SHOWN_LIMIT_S:
            self._show_oldest()
        while self._recent and now >= self._recent[0].made_at_s + DETACHED_LIMIT_S:
            oldest = self._recent.popleft()
            if oldest.state is _State.DETACHED:
                self._detached -= 1
                oldest.state = _State.ENDED

    def due_s(self) -> float:
        """When expire() next has something to do; infinity if nothing is left."""
        due = self._recent[0].made_at_s + DETACHED_LIMIT_S if self._recent else float("inf")
        return min(due, self._expected[0].made_at_s + SHOWN_LIMIT_S) if self._expected else due
