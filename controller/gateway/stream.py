"""One exchange and its pick, on one gRPC stream: takes messages, asks for the pick, sends answers, accounts for all.

Owns what must be given back when the stream ends, however it ends; refuses to know how long it may take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from controller.catalog.classes import CROWDED, TOO_LARGE, Refusal, unknown_model
from controller.catalog.models import UnknownModel
from controller.catalog.resolving import Resolver
from controller.choosing.picker import Pick
from controller.choosing.room import Outcome, Room
from controller.exporting.counts import Counts, Series
from controller.gateway.bodies import Bodies
from controller.gateway.deadlines import Deadline
from controller.gateway.exchange import Exchange
from controller.model import Request
from controller.policies.admission import Waiter


class Crowded(Exception):
    """This stream's body has to go: too many are held."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all streams of one controller have in common."""

    resolver: Resolver
    room: Room
    counts: Counts
    bodies: Bodies[Stream]
    fault: Callable[[Exception], bool]  # notes a fault of ours; whether the request goes on without a pick


class Stream:
    """One exchange and its pick, on one gRPC stream."""

    __slots__ = (
        "_began_s",
        "_begun",
        "_holds",
        "_judged",
        "_next",
        "_sending",
        "_sent",
        "_series",
        "_shared",
        "_waits",
        "context",
        "evicted",
        "exchange",
        "last",
        "limit",
        "peer",
        "pick",
        "returns_last",
        "saw_end",
    )

    def __init__(
        self, exchange: Exchange, shared: Shared, context: grpc.aio.ServicerContext, returns_last: bool = False
    ) -> None:
        """returns_last: the answer after which nothing is to come stays in `last`."""
        self.exchange = exchange
        self.context = context
        self.peer = ""
        self.pick: Pick | None = None
        self.saw_end = False  # the gateway closed the stream, with or after the response
        self.evicted = False
        self.limit: Deadline | None = None  # of the request's arrival
        self.last: bytes | None = None  # the answer that ends the stream, if its carrier wants to send it
        self.returns_last = returns_last
        self._shared = shared
        self._next: asyncio.Future[Any] | None = None  # a message that is already waited for
        self._began_s = time.monotonic()
        self._series: Series | None = None  # what the request is counted under, once it came to its pick
        self._waits: tuple[Request, Waiter] | None = None
        self._holds = False  # something of the body is counted as held
        self._begun = False  # the first answer is sent, or on its way
        self._sending = False  # an answer is on its way; the gateway may be slow to take it
        self._sent = False
        self._judged = False

    async def look(self, limit_s: float) -> bool:
        """Waits so long for the next message and leaves it to step(): gRPC loses what a cancelled read would get."""
        self._next = asyncio.ensure_future(self.context.read())
        await asyncio.wait({self._next}, timeout=limit_s)
        return self._next.done()

    async def step(self) -> bool:
        """Reads one message and sends what it leads to; False once the stream has nothing more to say.

        Raises Crowded if its body has to go.
        """
        awaited, self._next = self._next, None
        message = await (awaited or self.context.read())
        if message is grpc.aio.EOF:
            return False
        if self.evicted:  # while the message was on its way
            raise Crowded
        answers = self._take(message)
        if answers is None:
            answers = await self._waited()
        if answers:
            await self.send(answers)
        exchange = self.exchange
        self._sent = bool(exchange.destination)
        if self._holds and not exchange.held_bytes:
            self._let_go()
        if exchange.served is not None and not self._judged:
            self._judged = True
            if self.pick:
                self.pick.served_by(exchange.served, time.monotonic())
        return not exchange.over

    def _take(self, message: bytes) -> list[bytes] | None:
        """What a message leads to; None: the request has to wait, see _waited(). Raises Crowded.

        Whatever goes wrong in here, the gateway gets an answer: it would wait for ever in FULL_DUPLEX_STREAMED.
        """
        exchange = self.exchange
        try:
            answers = exchange.receive(message)
            if exchange.held_bytes:
                self._hold(exchange.held_bytes)
            return answers if exchange.asks is None else self._settle(exchange.asks)
        except Crowded:
            raise
        except Exception as error:  # noqa: BLE001 - logged by fault
            return exchange.fail(self._shared.fault(error))

    def _hold(self, size_bytes: int) -> None:
        """Says how much is held now; who has to go for it is told."""
        self._holds = True
        for stream in self._shared.bodies.hold(self, size_bytes, whole=self.exchange.asks is not None):
            stream.evict()
        if self.evicted:
            raise Crowded

    def _let_go(self) -> None:
        if self._holds:
            self._holds = False
            self._shared.bodies.let_go(self)

    def evict(self) -> None:
        """Ends what this stream waits for: the rest of a body."""
        self.evicted = True
        if self.limit is not None:
            self.limit.hurry()

    async def give_up(self, late: Refusal) -> None:
        """The request did not come whole in time, or its body had to go, or the gateway does not take its answer."""
        if self._sending:  # part of the body is there already; an orderly end would say that this is all
            await self.context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the gateway did not take the answer in time")
        refusal = late
        if self.evicted:
            refusal = CROWDED if self.exchange.size_bytes <= self._shared.bodies.limit_bytes else TOO_LARGE
        await self.send(self._refuse(refusal))
        if not self.exchange.over and not self.exchange.answered:  # an orderly end would lose the rest of it
            await self.context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late.text)

    async def send(self, answers: list[bytes]) -> None:
        if answers and self.returns_last and (self.exchange.done or self.exchange.over):
            *answers, self.last = answers
        self._sending = True
        for answer in answers:
            await (self.context.write(answer) if self._begun else self._begin(answer))
        self._sending = False

    async def _begin(self, answer: bytes) -> None:
        """Headers go out with the first answer. Of one that is cut off grpcio does not know that, and sends them again
        with the status: the stream could not be ended any more."""
        self._begun = True
        assert self.limit is not None  # set before anything is read
        self.limit.hold()
        await self.context.write(answer)
        self.limit.release()

    def _settle(self, asks: Request) -> list[bytes] | None:
        shared, exchange = self._shared, self.exchange
        began = time.perf_counter()
        now = time.monotonic()
        try:
            request = asks.looked_up(shared.resolver.resolve(asks, now))
        except UnknownModel as error:
            return self._refuse(unknown_model(error.model))
        outcome = shared.room.enter(request, now, exchange.hurried)
        decision_s = time.perf_counter() - began
        self._series = shared.counts.picked(request, decision_s, size_bytes=exchange.size_bytes)
        if isinstance(outcome, Waiter):
            self._waits = request, outcome
            return None
        return self._decided(request, outcome)

    async def _waited(self) -> list[bytes]:
        assert self._waits is not None
        (request, waiter), self._waits = self._waits, None
        try:
            return self._decided(request, await self._shared.room.wait(waiter))
        except Exception as error:  # noqa: BLE001 - as above
            return self.exchange.fail(self._shared.fault(error))

    def _decided(self, request: Request, outcome: Outcome) -> list[bytes]:
        if isinstance(outcome, Refusal):
            return self._declined(request, outcome)
        self.pick = outcome
        rewrite = request.resolved.rewrite if request.resolved else None
        return self.exchange.answer(outcome.destination, rewrite)

    def _declined(self, request: Request, refusal: Refusal) -> list[bytes]:
        if refusal.declined and request.resolved:
            self._shared.counts.declined(refusal.declined, request.resolved.objective, request.resolved.priority)
        return self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> list[bytes]:
        return self.exchange.refuse(refusal.status, refusal.code, refusal.text, refusal.headers)

    def close(self) -> None:
        self._let_go()
        if self._next is not None:
            self._next.cancel()
        now = time.monotonic()
        self._count_end(now)
        if self.pick is None:
            return
        if not self._sent:
            self.pick.drop(now)
        elif self.saw_end and not self.exchange.outlives_stream:
            self.pick.end(now)
        else:
            self.pick.detach(now)

    def _count_end(self, now: float) -> None:
        if self.exchange.refused is not None:
            self._shared.counts.refused(self.exchange.refused, self._series)
        if self._series is None:
            return
        status = self.exchange.response_status
        if status is not None and self.pick is not None:
            self.pick.answered(status, now)
        if status is not None and status >= 400:
            self._shared.counts.failed(status, self._series)
        followed = self.pick is None or not self._sent or (self.saw_end and not self.exchange.outlives_stream)
        self._shared.counts.ended(self._series, now - self._began_s if followed else None)
