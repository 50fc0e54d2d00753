"""Where requests wait that may not be sent yet: the asyncio edge of policies/admission.py.

A request goes at once if the gate and the forecast of its endpoint let it, and nobody as important waits already. Else
it waits its turn: each POLL_S the first of each priority is tried again, until its budget is spent, or cannot be met
any more; then it is refused. One task does that, and only while somebody waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from controller.catalog.classes import LATE, Refusal
from controller.choosing.admission import Gate, Nobody, admit_all, no_endpoint
from controller.choosing.picker import Pick, Picker, Proposal
from controller.model import Request
from controller.policies.admission import OUTPUT_WEIGHT, Line, Waiter
from controller.policies.fleet import Fleet, Job

log = logging.getLogger(__name__)

POLL_S = 0.01
PATIENCE_MOST_S = 30.0  # gateways and the limit of a request's arrival have less patience than a wide budget
HURRIED_S = 0.15  # where the gateway's message_timeout counts, which is 200 ms by default: a 429 is better than its 504

FLOW_MOST = 256  # characters of a flow's name that count: clients make them up, and thousands are remembered

Outcome = Pick | Refusal


@dataclass(slots=True)
class Held:
    """A waiting request and what is known of it."""

    request: Request
    job: Job | None  # what it is to each endpoint of the fleet
    fleet: Fleet
    refusal: Refusal  # if it is not let in
    outcome: asyncio.Future[Outcome]


class Room:
    def __init__(
        self,
        picker: Picker,
        gate: Gate = admit_all,
        clock: Callable[[], float] = time.monotonic,
        nobody: Nobody = no_endpoint,
    ) -> None:
        self._picker = picker
        self._gate = gate
        self._nobody = nobody
        self._clock = clock
        self._line = Line()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return self._line.size

    def enter(self, request: Request, now: float, hurried: bool = False) -> Outcome | Waiter:
        """The pick or the refusal if that is settled now; else who waits, to be awaited by wait().

        hurried: the gateway will not wait for an answer as long as we like.
        """
        priority = request.resolved.priority if request.resolved else 0
        refusal = self._gate(request, self._picker.table, now)
        proposal = None
        if refusal is None and not self._is_behind(priority):
            proposal = self._picker.propose(request, now)
            if proposal is None:
                return self._nobody(request)
            if self._picker.admits(proposal):
                return self._take(request, proposal, now)
        fleet = self._picker.table.fleet
        held = Held(request, proposal.job if proposal else None, fleet, refusal or LATE, _outcome())
        patience_s = min(self._picker.budgets.patience_s(priority), HURRIED_S if hurried else PATIENCE_MOST_S)
        if patience_s <= 0.0:
            return held.refusal
        return self._hold(held, priority, now, now + patience_s)

    async def wait(self, waiter: Waiter) -> Outcome:
        held: Held = waiter.what
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="waiting room")
        try:
            return await held.outcome
        except asyncio.CancelledError:
            self._line.leave(waiter)
            got = held.outcome
            if got.done() and not got.cancelled() and got.exception() is None and isinstance(got.result(), Pick):
                got.result().drop(self._clock())  # type: ignore[union-attr]
            raise

    def _hold(self, held: Held, priority: int, now: float, deadline_s: float) -> Waiter:
        size = len(held.request.body or b"")
        waiter = Waiter(held, priority, _flow(held.request), now, deadline_s, size_bytes=size)
        for gone in self._line.join(waiter):
            _settle(gone, gone.what.refusal)
        return waiter

    def _is_behind(self, priority: int) -> bool:
        """Whether somebody at least as important waits already."""
        head = next(self._line.heads(), None) if self._line.size else None
        return head is not None and head.priority >= priority

    def _take(self, request: Request, proposal: Proposal, now: float) -> Pick:
        job = proposal.job
        output = job.output_tokens if job.output_tokens is not None else self._picker.table.fleet.mean_output_tokens
        self._line.served(job.priority, _flow(request), job.prompt_tokens + OUTPUT_WEIGHT * output)
        return self._picker.take(proposal, now)

    async def _serve(self) -> None:
        try:
            while self._line.size:
                await asyncio.sleep(POLL_S)
                now = self._clock()
                for late in self._line.expired(now):
                    _settle(late, late.what.refusal)
                self._let_in(now)
        except Exception as error:  # noqa: BLE001 - a fault of ours: each of them is answered by the pool's failureMode
            for left in self._line.everybody():
                self._line.leave(left)
                if not left.what.outcome.done():
                    left.what.outcome.set_exception(error)
        finally:
            for left in self._line.everybody():  # nobody may wait for ever
                self._line.leave(left)
                _settle(left, left.what.refusal)

    def _let_in(self, now: float) -> None:
        """Those who may go now; who is less important goes only when nobody more important waits."""
        while (head := next(self._line.heads(), None)) is not None:
            outcome = self._try(head, now)
            if outcome is None:
                return
            self._line.leave(head)
            _settle(head, outcome)

    def _try(self, waiter: Waiter, now: float) -> Outcome | None:
        """None: not yet."""
        held: Held = waiter.what
        if held.outcome.done():  # its client went away
            return held.refusal
        if self._gate(held.request, self._picker.table, now) is not None:
            return None
        fleet = self._picker.table.fleet
        if held.fleet is not fleet:  # the pool has changed meanwhile
            held.job, held.fleet = None, fleet
        proposal = self._picker.propose(held.request, now, held.job)
        if proposal is None:
            return self._nobody(held.request)
        held.job = proposal.job
        if self._picker.admits(proposal, now - waiter.arrived_s):
            return self._take(held.request, proposal, now)
        # it would go if it had just come, but what it has waited cannot be caught up
        return held.refusal if self._picker.admits(proposal) else None


def _outcome() -> asyncio.Future[Outcome]:
    return asyncio.get_running_loop().create_future()


def _flow(request: Request) -> str:
    return (request.flow or "")[:FLOW_MOST]


def _settle(waiter: Waiter, outcome: Outcome) -> None:
    future = waiter.what.outcome
    if not future.done():
        future.set_result(outcome)
