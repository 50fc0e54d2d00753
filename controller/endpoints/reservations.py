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

Each carries the prompt tokens that its endpoint has to compute. Those of requests before their first byte are the
endpoint's queue: engines compute prompts in the order in which they come, so when the kernel counts w requests that
wait, the youngest w of ours are taken to be among them. Where nothing is measured a prompt is taken to be done after
a time (PROMPT_S and its tokens at a slow engine's pace).

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
PROMPT_S = 0.1
PROMPT_TOKEN_S = 1e-4


class _State(Enum):
    OPEN = "open"
    DETACHED = "detached"
    ENDED = "ended"
    DROPPED = "dropped"


_LIVE = (_State.OPEN, _State.DETACHED)  # to look a member up costs as much as to compare it


class Reservation:
    """One pick. Give it back to its ledger by exactly one of drop, end, detach; what comes later does nothing."""

    __slots__ = ("begun_at_s", "ledger", "made_at_s", "queued", "shown", "state", "tokens", "uncached")

    def __init__(self, ledger: Ledger, made_at_s: float, tokens: float = 0.0, uncached: float = 0.0) -> None:
        self.ledger = ledger
        self.made_at_s = made_at_s
        self.tokens = tokens
        self.uncached = uncached
        self.queued = True  # before its first byte, as far as known
        self.begun_at_s: float | None = None  # when a kernel's count showed that byte
        self.state = _State.OPEN
        self.shown = False


class Ledger:
    """The reservations of one endpoint."""

    __slots__ = (
        "_detached",
        "_expected",
        "_open",
        "_queue",
        "_recent",
        "own_tokens",
        "own_waiting",
        "queued_tokens",
        "unshown",
    )

    def __init__(self) -> None:
        self.unshown = 0
        self.own_tokens = 0.0
        self.own_waiting = 0
        self.queued_tokens = 0.0
        self._queue: deque[Reservation] = deque()  # whose first byte is to come, oldest first; some are over
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

    def reserve(self, now: float, tokens: float = 0.0, uncached: float = 0.0) -> Reservation:
        made = Reservation(self, now, tokens, uncached)
        self._open += 1
        self.unshown += 1
        self.own_tokens += tokens
        self.own_waiting += 1
        self.queued_tokens += uncached
        self._queue.append(made)
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
        self._forget(made)

    def _forget(self, made: Reservation) -> None:
        """It is over, as far as its tokens go."""
        self.own_tokens = max(0.0, self.own_tokens - made.tokens) if self.own else 0.0
        self._begin(made)

    def _begin(self, made: Reservation) -> None:
        """Its first byte has come."""
        if not made.queued:
            return
        made.queued = False
        self.own_waiting -= 1
        self.queued_tokens = max(0.0, self.queued_tokens - made.uncached) if self.own_waiting else 0.0

    def answered(self, waiting: int, at_s: float | None = None) -> None:
        """The kernel counts so many requests before their first byte, whosesoever."""
        queue = self._queue
        while queue and (not queue[0].queued or (queue[0].shown and self.own_waiting - self.unshown > waiting)):
            first = queue.popleft()
            if first.queued:
                first.begun_at_s = at_s
            self._begin(first)

    def show(self, starts: int, until_s: float) -> int:
        """The kernel counted so many more starts up to a time; returns how many of them are taken to be ours."""
        expected, left = self._expected, starts
        while left > 0 and expected and expected[0].made_at_s <= until_s:
            left -= self._show_oldest()
        return starts - left

    def show_all(self, until_s: float) -> None:
        """The kernel counts this endpoint from now on: what is older than its first reading is in that reading."""
        while self._expected and self._expected[0].made_at_s <= until_s - ARRIVAL_S:
            self._show_oldest()

    def _show_oldest(self) -> int:
        """1, or 0 if it was never sent, so that the kernel cannot have counted it."""
        oldest = self._expected.popleft()
        if oldest.state in _LIVE:
            self.unshown -= 1
        oldest.shown = True
        return 0 if oldest.state is _State.DROPPED else 1

    def since(self, true_at_s: float) -> int:
        """Picks that a page true at that time cannot know, and that are not over."""
        count, until_s, live = 0, true_at_s - ARRIVAL_S, _LIVE
        for made in reversed(self._recent):
            if made.made_at_s <= until_s:
                break
            if made.state in live:
                count += 1
        return count

    def expire(self, now: float) -> int:
        """Lets go what time has settled; returns how many that were sent the kernel has never shown."""
        unseen = 0
        while self._expected and now >= self._expected[0].made_at_s + SHOWN_LIMIT_S:
            unseen += self._show_oldest()
        while self._queue and (not self._queue[0].queued or self._is_computed(self._queue[0], now)):
            self._begin(self._queue.popleft())
        while self._recent and now >= self._recent[0].made_at_s + DETACHED_LIMIT_S:
            oldest = self._recent.popleft()
            if oldest.state is _State.DETACHED:
                self._detached -= 1
                oldest.state = _State.ENDED
                self._forget(oldest)
        return unseen

    def _is_computed(self, made: Reservation, now: float) -> bool:
        """Only where no kernel tells: there a reservation is never shown but by time."""
        return now >= made.made_at_s + max(SHOWN_LIMIT_S, PROMPT_S + PROMPT_TOKEN_S * made.uncached)

    def due_s(self) -> float:
        """When expire() next has something to do; infinity if nothing is left."""
        due = self._recent[0].made_at_s + DETACHED_LIMIT_S if self._recent else float("inf")
        return min(due, self._expected[0].made_at_s + SHOWN_LIMIT_S) if self._expected else due
