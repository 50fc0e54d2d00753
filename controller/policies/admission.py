"""Whether a request may go now, by what is predicted for it against the budget of its class; and who is next of those
that wait. Pure: time is an argument.

A request whose wait before its own prompt's turn would be longer than its class allows, or whose tokens would come too
slowly, is not sent: it waits here, where what is more important overtakes it, and is refused when its budget is spent.
What nothing is measured for is always sent, and so is what an idle endpoint could take: below capacity nobody waits.

Next is the highest priority; among equals the flow that was given least so far (tokens in, and tokens out twice), so
that one client's flood does not starve another; within a flow the earliest deadline.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from controller.policies.price import Forecast

OUTPUT_WEIGHT = 2.0  # an output token costs a flow so many input tokens
FLOWS_MOST = 10_000
WAITING_MOST = 2_000
BYTES_MOST = 256 << 20


class Share(NamedTuple):
    """Of the budgets, by class: important requests may take more than all, others leave room for these."""

    ttft: float
    gap: float


# Gaps grow after a request was let in, as contexts do: at 1.6 times what a pool can do, standard shares of 0.88, 0.8
# and 0.72 left 97.8, 98.7 and 99.4 % of the critical requests within their objectives (bench/policy).
CRITICAL = Share(1.5, 1.1)
STANDARD = Share(0.8, 0.72)
SHEDDABLE = Share(0.5, 0.6)


def share_of(priority: int) -> Share:
    if priority > 0:
        return CRITICAL
    return STANDARD if priority == 0 else SHEDDABLE


@dataclass(frozen=True, slots=True)
class Budgets:
    """What requests shall get. None: no such wish."""

    ttft_s: float | None = (
        None  # wait before the own prompt's turn, which is the time to the first token less its own work
    )
    gap_s: float | None = None  # between two tokens

    def patience_s(self, priority: int) -> float:
        """How long a request may wait here."""
        return 0.0 if self.ttft_s is None else self.ttft_s * share_of(priority).ttft


def admits(forecast: Forecast, priority: int, budgets: Budgets, waited_s: float = 0.0) -> bool:
    """Whether a request may be sent to the endpoint that the forecast is for."""
    if not forecast.measured or forecast.in_flight < 1.0:
        return True
    share = share_of(priority)
    if budgets.ttft_s is not None and forecast.wait_s + waited_s > budgets.ttft_s * share.ttft:
        return False
    return budgets.gap_s is None or not forecast.gap_s > budgets.gap_s * share.gap


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits. `what` is its owner's."""

    what: Any
    priority: int
    flow: str
    arrived_s: float
    deadline_s: float
    tokens: float = 0.0  # what it will be charged
    size_bytes: int = 0


@dataclass(slots=True)
class _Band:
    """Those of one priority, by flow, each flow in the order of deadlines."""

    flows: dict[str, list[Waiter]] = field(default_factory=dict)


class Line:
    """All that wait."""

    def __init__(self, most: int = WAITING_MOST, most_bytes: int = BYTES_MOST) -> None:
        self._bands: dict[int, _Band] = {}
        self._given: OrderedDict[tuple[int, str], float] = OrderedDict()
        self._most = most
        self._most_bytes = most_bytes
        self.size = 0
        self.size_bytes = 0

    def join(self, waiter: Waiter) -> list[Waiter]:
        """Takes one in; returns who must go for want of room, which may be the one that came."""
        band = self._bands.setdefault(waiter.priority, _Band())
        if waiter.flow not in band.flows:
            self._lift(waiter.priority, waiter.flow, band)
        flow = band.flows.setdefault(waiter.flow, [])
        at = len(flow)
        while at and flow[at - 1].deadline_s > waiter.deadline_s:
            at -= 1
        flow.insert(at, waiter)
        self.size += 1
        self.size_bytes += waiter.size_bytes
        gone = []
        while self.size > self._most or self.size_bytes > self._most_bytes:
            victim = self._least()
            self.leave(victim)
            gone.append(victim)
        return gone

    def leave(self, waiter: Waiter) -> None:
        """It waits no more, whatever became of it."""
        band = self._bands.get(waiter.priority)
        flow = band.flows.get(waiter.flow) if band else None
        if band is None or flow is None or waiter not in flow:
            return
        flow.remove(waiter)
        self.size -= 1
        self.size_bytes -= waiter.size_bytes
        if not flow:
            del band.flows[waiter.flow]
        if not band.flows:
            del self._bands[waiter.priority]

    def served(self, priority: int, flow: str, tokens: float) -> None:
        """A request of the flow was sent, whether it had waited or not."""
        key = (priority, flow)
        self._given[key] = self._given.get(key, 0.0) + max(0.0, tokens)
        self._given.move_to_end(key)
        if len(self._given) > FLOWS_MOST:
            self._given.popitem(last=False)

    def heads(self) -> Iterator[Waiter]:
        """The next of each priority, the most important first."""
        for priority in sorted(self._bands, reverse=True):
            flows = self._bands[priority].flows
            least = min(flows, key=lambda flow: (self._given.get((priority, flow), 0.0), flows[flow][0].deadline_s))
            yield flows[least][0]

    def everybody(self) -> list[Waiter]:
        return [one for band in self._bands.values() for flow in band.flows.values() for one in flow]

    def expired(self, now: float) -> list[Waiter]:
        """Those whose deadline has come. They wait no more."""
        late = [one for one in self.everybody() if one.deadline_s <= now]
        for one in late:
            self.leave(one)
        return late

    def _lift(self, priority: int, flow: str, band: _Band) -> None:
        """A flow that comes back has no claim from its absence: it begins where the least served of the others is."""
        others = [self._given.get((priority, other), 0.0) for other in band.flows]
        if others:
            key = (priority, flow)
            self._given[key] = max(self._given.get(key, 0.0), min(others))

    def _least(self) -> Waiter:
        """The one with the latest deadline of the flow that holds most, in the lowest priority."""
        flows = self._bands[min(self._bands)].flows
        return max(flows.values(), key=len)[-1]
