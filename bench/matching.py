"""What the kernel must have counted, given an engine's own log and what the client did. Pure.

Nobody can read a counter and the truth at the same instant. So what is compared with a sample is not a guess of the
order of events but what follows from cause and effect alone: a request begins in the kernel after the client sent it
and before the engine saw it, and ends there after one side wrote or closed and before the other side saw that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.engines import truth
from lab.engines.truth import Record

# A client's FIN may be a half-close, so the kernel counts an abort when the engine's socket closes: that is right after
# the engine has logged it, in the same turn of its event loop. No event on either side marks it, hence an allowance.
CLOSE_NS = 5_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """A request as the client knows it. Times are CLOCK_MONOTONIC nanoseconds."""

    id: str
    sent_ns: int  # right before the first byte was written
    over_ns: int  # the answer was read to its end; of an aborted call: right before the connection was closed
    aborted: bool
    events: int  # data events read


@dataclass(frozen=True, slots=True)
class Pair:
    """One request from both sides."""

    call: Call
    record: Record

    @property
    def ttft_ns(self) -> int | None:
        """As the engine saw it: first byte of the request read to first data written."""
        first = self.record.first_data_ns
        return None if first is None else first - self.record.first_byte_ns

    @property
    def chunks(self) -> range:
        """How many data segments the kernel may have seen: what was written before an abort is only known between."""
        written = len(self.record.data_ns) + (self.record.done_ns is not None)
        seen = self.call.events if self.call.aborted else written
        return range(seen, written + 1)

    def begin(self) -> tuple[int, int]:
        """Between these instants the kernel saw it begin."""
        return self.call.sent_ns, self.record.first_byte_ns

    def end(self) -> tuple[int, int]:
        """Between these instants the kernel saw it end."""
        logged_ns = self.record.end_ns or 0
        return (self.call.over_ns, logged_ns + CLOSE_NS) if self.call.aborted else (logged_ns, self.call.over_ns)


@dataclass(frozen=True, slots=True)
class Sample:
    """The kernel's in-flight count of one pod, read between two instants."""

    before_ns: int
    after_ns: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a pod's samples came to. `pinned`: those for which cause and effect leave one number only."""

    samples: int
    pinned: int
    wrong: int


def pair(calls: Iterable[Call], records: Iterable[Record]) -> list[Pair]:
    """Calls with the engine's records of the same request id, in the calls' order; calls without one are left out."""
    by_id = {record.request_id: record for record in records}
    return [Pair(call, by_id[call.id]) for call in calls if call.id in by_id]


def outcome_agrees(pair: Pair, completed: int, client_aborted: int) -> bool:
    """Whether the kernel counted the end that the engine logged."""
    if pair.record.outcome == truth.CLIENT_ABORTED:
        return (completed, client_aborted) == (0, 1)
    return (completed, client_aborted) == (1, 0)


def possible(pairs: Sequence[Pair], sample: Sample) -> range:
    """The in-flight counts that a sample may show."""
    surely = sum(pair.begin()[1] < sample.before_ns and pair.end()[0] > sample.after_ns for pair in pairs)
    at_most = sum(pair.begin()[0] <= sample.after_ns and pair.end()[1] >= sample.before_ns for pair in pairs)
    return range(surely, at_most + 1)


def judge(pairs: Sequence[Pair], samples: Iterable[Sample]) -> Sampled:
    """Compares every sample of one pod with what is possible."""
    count = pinned = wrong = 0
    for sample in samples:
        may_be = possible(pairs, sample)
        count += 1
        pinned += len(may_be) == 1
        wrong += sample.in_flight not in may_be
    return Sampled(count, pinned, wrong)
