"""The parts of all endpoints' prices, kept between choices and brought up to what changed. Pure.

Owns when a part must be computed anew; what it comes to is `parts.py`, what is made of it `price.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from controller.policies.fleet import Array, Fleet, Job
from controller.policies.one import part_of
from controller.policies.parts import (
    COUNT_LIMIT_S,
    ENGINE,
    LONGEST_S,
    MOST_TOKENS,
    OTHERS,
    Count,
    Engine,
    Part,
    Pool,
    count,
    part,
)

COLD_LOOK_S = 0.1
FEW = 32  # endpoints
# Of endpoints that changed so many are computed one by one: all at once cost as much as fifteen, and one for each 128.
ONE_BY_ONE, AS_MANY = 15, 128


class Prices:
    """The parts of all endpoints of one fleet, brought up to its changes before each choice.

    Of few endpoints as numbers, since array operations on so few cost more; else as arrays.
    """

    __slots__ = (
        "_fleet",
        "_job",
        "_parts",
        "_price_s",
        "_tokens",
        "_total",
        "_until_s",
        "engine",
        "few",
        "pool",
        "tied",
    )

    def __init__(self, engine: Engine = ENGINE) -> None:
        self.engine = engine
        self.few: list[Part] = []  # each endpoint's; empty where there are many
        self._parts: Array | None = np.zeros((len(Part._fields), 0))  # None: to be made of `few`
        self.pool = Pool(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, False)
        self._price_s: Array | list[float] = np.zeros(0)
        self.tied = 0  # endpoints whose prices were equal in the last choice
        self._fleet: Fleet | None = None
        self._until_s = 0.0
        self._total = 0.0
        self._job: Job | None = None
        self._tokens: Array | float = 0.0

    @property
    def parts(self) -> Array:
        if self._parts is None:
            self._parts = np.array(self.few, np.float64).T
        return self._parts

    def of(self, at: int) -> Sequence[float]:
        """The parts of one endpoint."""
        one: Sequence[float] = self.few[at] if self.few else self.parts[:, at].tolist()
        return one

    @property
    def price_s(self) -> Array:
        """Of the last choice."""
        if isinstance(self._price_s, list):
            self._price_s = np.array(self._price_s)
        return self._price_s

    @price_s.setter
    def price_s(self, price_s: Array | list[float]) -> None:
        self._price_s = price_s

    def refresh(self, fleet: Fleet) -> None:
        touched = fleet.touched
        known = fleet is self._fleet and fleet.tracked and fleet.now_s <= self._until_s
        if not known or touched is None or not self._renewed(fleet, touched):
            self._rebuild(fleet)
        if touched is None or touched:
            fleet.touched = set() if fleet.tracked else None

    def _rebuild(self, fleet: Fleet) -> None:
        columns = fleet.matrix
        with np.errstate(all="ignore"):
            counted = count(columns, fleet.now_s, fleet.whole_share)
        usual, foreign = _means(counted, fleet.own_in_flight)
        self.pool = Pool(
            fleet.mean_prompt_tokens,
            fleet.mean_uncached_tokens,
            fleet.mean_output_tokens,
            fleet.pool_pace if 0.0 < fleet.pool_pace < LONGEST_S else 1.0,
            usual,
            foreign,
            bool(2 * np.count_nonzero(counted.fresh) >= len(fleet)),
        )
        with np.errstate(all="ignore"):  # of numbers that are then not used
            self._parts = parts = np.array(part(columns, counted, fleet.now_s, self.pool, self.engine))
        self.few = list(map(Part._make, parts.T.tolist())) if len(fleet) <= FEW else []
        self._fleet = fleet
        self._total = float(parts[5].sum())
        self._until_s = _valid_until_s(fleet, counted)

    def _renewed(self, fleet: Fleet, touched: Collection[int]) -> bool:
        """Brings some endpoints up to date; False if all must be: one changes something for the others, or all at
        once cost less."""
        if not touched:
            return True
        if len(touched) > ONE_BY_ONE + len(fleet) // AS_MANY:
            return False
        matrix, now_s, whole_share = fleet.matrix, fleet.now_s, fleet.whole_share
        for at in touched:
            renewed = part_of(matrix[:, at].tolist(), now_s, whole_share, self.pool, self.engine)
            before = self.of(at)
            if renewed.fresh != before[-1]:
                return False
            self._total += renewed.total - before[-2]
            self._put(at, renewed)
        return True

    def _put(self, at: int, renewed: Part) -> None:
        if self.few:
            self.few[at], self._parts = renewed, None
        else:
            self.parts[:, at] = renewed

    def tokens(self, job: Job) -> Array | float:
        """What each endpoint would have to compute of the prompt; kept, for it is asked for several times a choice."""
        if job is not self._job:
            self._job, self._tokens = job, uncached_tokens(job)
        return self._tokens

    @property
    def last_s(self) -> Array | list[float]:
        """Of the last choice, in the form in which it was made."""
        return self._price_s

    def cached_s(self, job: Job) -> Array | list[float]:
        """What each endpoint's cache saves of the price, in that form."""
        tokens = self.tokens(job)
        if self.few and isinstance(tokens, np.ndarray):
            others, whole = OTHERS * self.mean_total, job.prompt_tokens
            own = tokens.tolist()
            return [(one[2] * others + one[1]) * (whole - own[at]) for at, one in enumerate(self.few)]
        saved: Array = (self.parts[2] * (OTHERS * self.mean_total) + self.parts[1]) * (job.prompt_tokens - tokens)
        return saved

    @property
    def mean_total(self) -> float:
        """Requests in flight at an endpoint of the pool, in the mean."""
        return self._total / max(1, len(self.few) or self.parts.shape[1])


def _means(counted: Count, own_in_flight: Array) -> tuple[float, float]:
    """Requests of an endpoint whose count is known, and those of them that are not ours."""
    total = counted.total[counted.known]
    if not len(total):
        return 0.0, 0.0
    return float(total.mean()), float(np.maximum(total - own_in_flight[counted.known], 0.0).mean())


def _valid_until_s(fleet: Fleet, counted: Count) -> float:
    """When time alone may change a part: a count or a signal gets too old, or a new pod may have more."""
    if not np.isnan(fleet.ready_at_s).all():
        return fleet.now_s + COLD_LOOK_S
    fresh = counted.fresh
    counts_s = float(fleet.kernel_at_s[fresh].min()) + COUNT_LIMIT_S if fresh.any() else fleet.now_s + COUNT_LIMIT_S
    return min(counts_s, fleet.now_s + COUNT_LIMIT_S)


def uncached_tokens(job: Job) -> Array | float:
    tokens = min(job.prompt_tokens, MOST_TOKENS) if job.prompt_tokens > 0.0 else 0.0  # NaN is not
    if job.uncached is None:
        return tokens
    return np.maximum(np.fmin(job.uncached, tokens), 0.0)
