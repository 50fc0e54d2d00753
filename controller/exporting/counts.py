"""What the request path counts for the metrics page: requests by model, errors, durations, decisions, declined ones.

Owned by the event loop; a request is counted in a microsecond or two and nothing is written here. The number of series
is bounded by top_names.py. Knows only what the gateway's streams show: answers are not read, so there are no tokens
here, and where the gateway closes a stream before the answer has ended, nobody tells how long the request took.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controller.exporting.top_names import NAME_LIMIT, OTHER, TopNames
from controller.model import Request

MODEL_LIMIT = 100
OBJECTIVE_LIMIT = 50

# of the field's scheduler, with three finer ones: a pick here costs some ten microseconds
DECISION_BOUNDS_S = (1e-5, 2.5e-5, 5e-5, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
# those the field uses for whole requests, 5 ms to one hour, and finer ones for embeddings and cached answers
DURATION_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30,
    45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
SIZE_BOUNDS_BYTES = tuple(float(64 << 2 * step) for step in range(11))  # 64 B to 64 MiB, the limit of a body


class Series(NamedTuple):
    """What a request is counted under."""

    model: str = ""  # "": it names none that we read
    target: str = ""  # the model it is sent on for
    priority: str = "0"


NOBODY = Series()


def _asked(request: Request) -> Series:
    resolved = request.resolved
    if resolved is None:
        return Series(request.model or "", request.model or "")
    return Series(resolved.model or "", resolved.target or "", str(resolved.priority))


class Rewritten(NamedTuple):
    rewrite: str  # the InferenceModelRewrite
    model: str
    target: str


class Declined(NamedTuple):
    reason: str
    objective: str
    priority: str


@dataclass(slots=True)
class Spread:
    """A histogram that is being filled: counts by bucket, the last without an upper bound."""

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Spread:
        copied = Spread(self.bounds)
        copied.counts, copied.sum = self.counts.copy(), self.sum
        return copied


@dataclass(slots=True)
class Tally:
    """The requests of one series."""

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by status
    running: int = 0  # picked, and the gateway's stream is still open
    unfollowed: bool = False  # a stream was closed before its answer's end, so that `running` is too low
    durations_s: Spread = field(default_factory=lambda: Spread(DURATION_BOUNDS_S))
    sizes_bytes: Spread = field(default_factory=lambda: Spread(SIZE_BOUNDS_BYTES))

    def copy(self) -> Tally:
        durations_s, sizes_bytes = self.durations_s.copy(), self.sizes_bytes.copy()
        return Tally(self.requests, self.errors.copy(), self.running, self.unfollowed, durations_s, sizes_bytes)


@dataclass(frozen=True, slots=True)
class Requests:
    """A copy of all counts, for who writes the page."""

    tallies: Mapping[Series, Tally]
    decisions_s: Spread
    declined: Mapping[Declined, int]
    faults: int = 0
    rewritten: Mapping[Rewritten, int] = field(default_factory=dict)


class Counts:
    def __init__(self, model_limit: int = MODEL_LIMIT) -> None:
        self._models = TopNames(model_limit)
        self._objectives = TopNames(OBJECTIVE_LIMIT)
        self._tallies: dict[Series, Tally] = {}
        self._decisions_s = Spread(DECISION_BOUNDS_S)
        self._declined: Counter[Declined] = Counter()
        self._rewritten: Counter[Rewritten] = Counter()
        self._faults = 0

    def picked(self, request: Request, decision_s: float, size_bytes: int | None = None) -> Series:
        """A whole request came to the point of its pick; returns what it is counted under, for what follows."""
        self._decisions_s.observe(decision_s)
        series = self._series(request)
        tally = self._tallies.get(series)
        if tally is None:
            tally = self._tallies[series] = Tally()
        tally.requests += 1
        tally.running += 1
        if size_bytes is not None:
            tally.sizes_bytes.observe(size_bytes)
        if request.resolved and request.resolved.rewritten_by:
            self._rewrote(Rewritten(request.resolved.rewritten_by, series.model, series.target))
        return series

    def _rewrote(self, key: Rewritten) -> None:
        """A generic rule takes any name clients make up, so these are as bounded as models are."""
        if key not in self._rewritten and len(self._rewritten) >= 4 * MODEL_LIMIT:
            key = Rewritten(key.rewrite if len(self._rewritten) < 5 * MODEL_LIMIT else OTHER, OTHER, OTHER)
        self._rewritten[key] += 1

    def refused(self, status: int, series: Series | None = None) -> None:
        """The picker itself answered; without a series the request had not come to its pick."""
        tally = self._tallies.setdefault(series or NOBODY, Tally())
        tally.errors[str(status)] += 1
        if series is None:
            tally.requests += 1

    def failed(self, status: int, series: Series) -> None:
        """The gateway showed an answer of the endpoint with an error status."""
        if (tally := self._tallies.get(series)) is not None:
            tally.errors[str(status)] += 1

    def ended(self, series: Series, duration_s: float | None) -> None:
        """The gateway's stream is over. None: but the answer may not be, and nobody will tell."""
        tally = self._tallies.get(series)
        if tally is None:  # its model's series are gone meanwhile
            return
        tally.running = max(0, tally.running - 1)
        if duration_s is None:
            tally.unfollowed = True
        else:
            tally.durations_s.observe(duration_s)

    def declined(self, reason: str, objective: str | None, priority: int) -> None:
        """Admission turned a request away. `reason` is one of few words of ours; objectives may be of any number."""
        name, gone = self._objectives.label(objective or "")
        if gone is not None:
            self._declined = Counter({key: count for key, count in self._declined.items() if key.objective != gone})
        key = Declined(reason, name, str(priority))
        if key not in self._declined and len(self._declined) >= 4 * OBJECTIVE_LIMIT:
            key = Declined(reason, OTHER, OTHER)
        self._declined[key] += 1

    def faulted(self) -> None:
        """A request met a fault of ours."""
        self._faults += 1

    def view(self) -> Requests:
        tallies = {series: tally.copy() for series, tally in self._tallies.items()}
        declined, rewritten = dict(self._declined), dict(self._rewritten)
        return Requests(tallies, self._decisions_s.copy(), declined, self._faults, rewritten)

    def _series(self, request: Request) -> Series:
        asked = _asked(request)
        name, gone = self._models.label(asked.model)
        if gone is not None:
            self._tallies = {series: tally for series, tally in self._tallies.items() if series.model != gone}
        if name != asked.model:
            return self._bounded(Series(name, name, asked.priority))
        if len(asked.target) > NAME_LIMIT:  # a header may say any
            return self._bounded(Series(name, OTHER, asked.priority))
        return self._bounded(asked)

    def _bounded(self, series: Series) -> Series:
        """Targets and priorities are the cluster's, not the clients', but nothing bounds them either."""
        if series in self._tallies or len(self._tallies) < 4 * MODEL_LIMIT:
            return series
        return Series(OTHER, OTHER, "0")
