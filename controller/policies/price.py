"""The rule `sonde`: each endpoint's price for one request in seconds, and the choice of the cheapest. Pure.

    price = network, adapter, full memory, prompt tokens before and of this request, one step  (to the first token)
          + BETA x own output tokens x decode step                                             (own decoding)
          + OTHERS x the pool's mean in flight x own prompt tokens                             (stall of the others)

All terms are seconds, so nothing is weighted against anything, and prefix hits or adapters enter only as time saved.
The stall of others is taken at the pool's mean, not at each endpoint's own number: with that, long requests flee from
full endpoints to empty ones, near saturation short and long ones part ways, and goodput is lost. What a step costs is
a rough idea of an engine (`Engine`); how each pod differs from it is learned (`speed.py`).

Where fewer than half of the endpoints have a fresh count from a kernel, such seconds are guesses that miss how fast a
pod is. Then the price is the work in flight, by engine pages or own requests: token-weighted least request.

Any number may be missing, NaN, negative or absurd; then it is not used. A choice is made whenever there is an endpoint.
All but the request's own tokens is kept between choices (`Prices`), so that a choice costs a few array operations.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import numpy as np

from controller.policies.fleet import STANDINGS, Array, Fleet, Form, Job, Policy, queue_of
from controller.policies.forms import ARRAYS, NUMBERS, Forms

COUNT_LIMIT_S = 0.25  # a kernel's count that is older misleads more than it tells
FROZEN_S = 1.0  # and so does one that stands still for so long while requests are sent
SIGNAL_LIMIT_S = 2.0  # and so does anything else that is older than this
MOST_REQUESTS = 1e5  # of one pod; more is no count
MOST_TOKENS = 1e8
LONGEST_S = 3600.0

BETA = 0.05  # of the own decode time; from 0.2 on it outweighs prefix hits
OTHERS = 0.05  # not more than BETA
BUSY_MOST = 0.85  # share of an engine's time that prompts are taken to fill at most
TIE = 0.02  # prices so near to the lowest are equal: several pickers see the same numbers
TIE_MOST_S = 0.002  # but no more than this: if all numbers are wrong and huge, what is sure must still decide
FAILURE_S = 2.0  # what a failed try costs the client
TURNS = 3.0  # fewer tell nothing of a queue
KV_FULL = 0.9  # from here on a request may have to wait until another ends
COLD_S = 30.0
COLD_SPEED = 2.0
COLD_LOOK_S = 0.1
STANDING_S = 1e12  # of one unit of `standing`: above any price
ABSURD_S = 1e9  # what no numbers lead to but senseless ones
CAP_S = 1e4  # of a cold endpoint that has its share
FEW = 32  # endpoints
# Of endpoints that changed so many are computed one by one: all at once cost as much as fifteen, and one for each 128.
ONE_BY_ONE, AS_MANY = 15, 128
OUTPUT_WORK = 15.0  # output tokens cost so many times a prompt token where nothing is measured


@dataclass(frozen=True, slots=True)
class Engine:
    """Time of one step: `step_s + sequence_s * sequences + kv_token_s * context tokens + token_s * prompt tokens`.

    The defaults are an 8B model on an H100: kernel times that NVIDIA publishes for it, and 20 % for all around.
    """

    step_s: float = 0.0071
    sequence_s: float = 1.2e-5
    kv_token_s: float = 5.2e-8
    token_s: float = 2.35e-5


ENGINE = Engine()


class Pool(NamedTuple):
    """What concerns all endpoints."""

    now_s: float
    mean_prompt_tokens: float
    mean_uncached_tokens: float
    mean_output_tokens: float
    pool_pace: float
    usual: float  # requests of an endpoint with known counts, in the mean
    foreign: float  # of them, those that others sent
    measured: bool  # at least half of the counts are a kernel's and fresh


class Count(NamedTuple):
    """Requests at an endpoint, from the best thing known of it."""

    total: Form
    waiting: Form  # of total: no first token yet
    fresh: Form  # by a kernel's count
    known: Form  # by that or by an engine's page


class Part(NamedTuple):
    """An endpoint's price but for the request's own tokens. The first two rows are all that a choice reads."""

    base_s: Form
    token_s: Form  # of each uncached prompt token, without the stall of others
    prompt_token_s: Form  # of that, what computing the token takes, which also stalls others
    ttft_s: Form  # of base_s: until the first token
    gap_s: Form  # between two tokens
    total: Form
    fresh: Form


def count(columns: Any, now_s: float, whole_share: float, form: Forms) -> Count:
    """Kernel's counts and own requests they cannot hold yet; else the engine's page; else own requests alone."""
    in_flight, waiting, kernel_at_s = columns[0], columns[1], columns[2]
    reserved, unpaged, own_waiting, _, own_in_flight, own_open = columns[8:14]
    running, queued, _, engine_at_s = columns[15:19]
    fresh = (now_s - kernel_at_s <= COUNT_LIMIT_S) & (in_flight >= 0.0) & (in_flight <= MOST_REQUESTS)
    fresh &= columns[29] < FROZEN_S
    requests = running + queued
    paged = (now_s - engine_at_s <= SIGNAL_LIMIT_S) & (running >= 0.0) & (queued >= 0.0) & (requests <= MOST_REQUESTS)
    total = form.where(fresh, in_flight + reserved, form.where(paged, requests + unpaged, own_in_flight))
    silent = form.where(waiting >= 0.0, form.minimum(waiting, in_flight), 0.0)
    silent = queue_of(silent, in_flight, whole_share, form.maximum) + reserved
    silent = form.where(fresh, silent, form.where(paged, queued + unpaged, own_waiting))
    total = form.maximum(total, own_open)
    total = form.where((total >= 0.0) & (total <= MOST_REQUESTS), total, 0.0)
    return Count(total, silent, fresh, fresh | paged)


def part(columns: Any, counted: Count, pool: Pool, engine: Engine, form: Forms) -> Part:
    """The same for one endpoint's numbers (form NUMBERS) and for all endpoints' arrays (form ARRAYS)."""
    _, _, kernel_at_s, gap_s, _, _, srtt_s = columns[:7]
    own_waiting, queued_tokens, own_in_flight, _, own_tokens = columns[10:15]
    _, _, kv_usage, engine_at_s, kv_tokens, _, speed, _, busy_s, turns, sent_rate = columns[15:26]
    failures, standing, ready_at_s = columns[31:]
    now_s, output = pool.now_s, pool.mean_output_tokens
    total = counted.total + form.where(counted.known, 0.0, pool.foreign)
    others = form.maximum(total - own_in_flight, 0.0)
    heard = (now_s - kernel_at_s <= SIGNAL_LIMIT_S) & (columns[29] < FROZEN_S)
    cold = now_s - ready_at_s < COLD_S
    slow = form.where(heard & (speed > 0.0) & (speed < LONGEST_S), speed, 1.0)
    slow = form.where(cold, form.maximum(slow, COLD_SPEED), slow) * pool.pool_pace
    ahead = queued_tokens + form.maximum(counted.waiting - own_waiting, 0.0) * pool.mean_uncached_tokens
    context = own_tokens + others * pool.mean_prompt_tokens + total * (0.5 * output)
    filled = (now_s - engine_at_s <= SIGNAL_LIMIT_S) & (kv_usage >= 0.0) & (kv_usage <= 1.0)
    context = form.where(filled & (kv_tokens > 0.0), kv_usage * kv_tokens, context)
    prompt_token_s = slow * engine.token_s
    # one decode step with this request in it, stretched by the prompts that keep coming
    stretch = slow / form.maximum(1.0 - prompt_token_s * sent_rate, 1.0 - BUSY_MOST)
    gap = (engine.step_s + engine.sequence_s * (total + 1.0) + engine.kv_token_s * context) * stretch
    gap_token_s = engine.kv_token_s * stretch
    # half that, half the measured mean; a measured gap far below it is that of an idle time. Where nothing is in flight
    # the mean is of the past and nothing would renew it: after a hang it would keep a pod idle for good
    measured = heard & (counted.total >= 1.0) & (gap_s > 0.0) & (gap_s <= LONGEST_S)
    gap = form.where(measured, 0.5 * (gap + form.maximum(gap_s, 0.5 * gap)), gap)
    gap_token_s = form.where(measured, 0.5 * gap_token_s, gap_token_s)
    full = form.where(filled, form.maximum(kv_usage - KV_FULL, 0.0) * (1.0 / (1.0 - KV_FULL)), 0.0)
    # a place in the queue costs its prompt's time, or what places cost of late: engines have other limits than time
    turn_s = form.where(heard & (turns >= TURNS), busy_s / form.maximum(turns, TURNS), 0.0)
    ttft = form.maximum(prompt_token_s * ahead, counted.waiting * turn_s) + gap
    ttft += full * (counted.waiting + 1.0) * gap * output / form.maximum(total, 1.0)
    way_s = form.where(heard & (srtt_s > 0.0) & (srtt_s <= LONGEST_S), srtt_s, 0.0)
    way_s = way_s + form.where((failures > 0.0) & (failures <= 1.0), FAILURE_S * failures, 0.0)
    ttft = ttft + way_s
    if pool.measured:
        base, token_s = ttft + gap * (BETA * output), prompt_token_s + gap_token_s * (1.0 + BETA * output)
    else:
        work = own_tokens + others * pool.mean_prompt_tokens + (total + 1.0) * (OUTPUT_WORK * output)
        base, token_s = work * prompt_token_s + way_s, prompt_token_s
    share = (now_s - ready_at_s) * (1.0 / COLD_S) * pool.usual
    base += form.where(cold & (total > 0.0) & (total > share), CAP_S, 0.0)
    usable = (base >= 0.0) & (base < ABSURD_S) & (token_s >= 0.0) & (token_s < 1.0) & (gap < ABSURD_S)
    base, gap = form.where(usable, base, ABSURD_S), form.where(usable, gap, 0.0)
    base = base + form.where((standing > 0.0) & (standing < STANDINGS), STANDING_S * standing, 0.0)
    token_s, prompt_token_s = form.where(usable, token_s, 0.0), form.where(usable, prompt_token_s, 0.0)
    return Part(base, token_s, prompt_token_s, form.where(usable, ttft, 0.0), gap, total, counted.fresh)


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
        self.pool = Pool(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, False)
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
            counted = count(columns, fleet.now_s, fleet.whole_share, ARRAYS)
        usual, foreign = _means(counted, fleet.own_in_flight)
        self.pool = Pool(
            fleet.now_s,
            fleet.mean_prompt_tokens,
            fleet.mean_uncached_tokens,
            fleet.mean_output_tokens,
            fleet.pool_pace if 0.0 < fleet.pool_pace < LONGEST_S else 1.0,
            usual,
            foreign,
            bool(2 * np.count_nonzero(counted.fresh) >= len(fleet)),
        )
        with np.errstate(all="ignore"):  # of numbers that are then not used
            self._parts = parts = np.array(part(columns, counted, self.pool, self.engine, ARRAYS))
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
        pool = Pool(fleet.now_s, *self.pool[1:])
        return all(self._renew(fleet, at, pool) for at in touched)

    def _renew(self, fleet: Fleet, at: int, pool: Pool) -> bool:
        column = fleet.matrix[:, at].tolist()
        counted = count(column, fleet.now_s, fleet.whole_share, NUMBERS)
        *_, total, fresh = self.of(at)
        if counted.fresh != fresh:
            return False
        renewed = part(column, counted, pool, self.engine, NUMBERS)
        self._total += renewed.total - total
        if self.few:
            self.few[at], self._parts = renewed, None
        else:
            self.parts[:, at] = renewed
        return True

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


def prices(fleet: Fleet, job: Job, memory: Prices) -> Array:
    """The price of each endpoint for this request."""
    memory.refresh(fleet)
    parts = memory.parts
    price: Array = parts[2] * (OTHERS * memory.mean_total)
    price += parts[1]
    price *= memory.tokens(job)
    price += parts[0]
    if job.output_tokens is not None and job.output_tokens >= 0.0 and memory.pool.measured:
        price += parts[4] * (BETA * (min(job.output_tokens, MOST_TOKENS) - memory.pool.mean_output_tokens))
    if job.adapter_wait_s is not None:
        price += np.fmin(np.fmax(job.adapter_wait_s, 0.0), LONGEST_S)
    return price


def uncached_tokens(job: Job) -> Array | float:
    tokens = min(job.prompt_tokens, MOST_TOKENS) if job.prompt_tokens > 0.0 else 0.0  # NaN is not
    if job.uncached is None:
        return tokens
    return np.maximum(np.fmin(job.uncached, tokens), 0.0)


def choose(fleet: Fleet, job: Job, rng: Random, memory: Prices) -> int:
    """The cheapest; of equals the one with the fewest requests, then by chance: other pickers see the same numbers."""
    memory.refresh(fleet)
    if not memory.few:
        memory.price_s = price = prices(fleet, job, memory)
        return _cheapest_of_many(price, memory, rng)
    few = prices_of_few(job, memory) if job.adapter_wait_s is None else prices(fleet, job, memory).tolist()
    memory.price_s = few
    return _cheapest_of_few(few, memory, rng)


def prices_of_few(job: Job, memory: Prices) -> list[float]:
    """The same as prices(), by the parts as they are, for a job without an adapter."""
    tokens, others = memory.tokens(job), OTHERS * memory.mean_total
    if isinstance(tokens, np.ndarray):
        own = tokens.tolist()
        price = [(one[2] * others + one[1]) * own[at] + one[0] for at, one in enumerate(memory.few)]
    else:
        price = [(one[2] * others + one[1]) * tokens + one[0] for one in memory.few]
    if job.output_tokens is not None and job.output_tokens >= 0.0 and memory.pool.measured:
        more = BETA * (min(job.output_tokens, MOST_TOKENS) - memory.pool.mean_output_tokens)
        price = [price_s + one[4] * more for price_s, one in zip(price, memory.few, strict=True)]
    return price


def _cheapest_of_many(price: Array, memory: Prices, rng: Random) -> int:
    at = int(price.argmin())
    lowest = float(price[at])
    near = price <= _equal_to(lowest)
    memory.tied = tied = int(np.count_nonzero(near))
    if tied <= 1:
        return at
    among = near.nonzero()[0]
    requests = memory.parts[5][among]
    among = among[requests == requests.min()]
    return int(among[rng.randrange(len(among))])


def _equal_to(lowest: float) -> float:
    return lowest + min(TIE * (lowest % STANDING_S), TIE_MOST_S)


def _cheapest_of_few(price: list[float], memory: Prices, rng: Random) -> int:
    lowest = min(price)
    most = _equal_to(lowest)
    near = [at for at, one in enumerate(price) if one <= most]
    memory.tied = len(near)
    if len(near) <= 1:
        return price.index(lowest)
    fewest = min(memory.few[at].total for at in near)
    among = [at for at in near if memory.few[at].total == fewest]
    return among[rng.randrange(len(among))]


SONDE = Policy(choose, new=Prices)


class Forecast(NamedTuple):
    """What is expected of one endpoint for one request."""

    ttft_s: float
    wait_s: float  # of it: before the request's own prompt has its turn
    gap_s: float
    in_flight: float
    measured: bool  # by kernels


def forecast(job: Job, memory: Prices, at: int) -> Forecast:
    """By the parts of the last choice."""
    tokens = memory.tokens(job)
    own = float(tokens[at]) if isinstance(tokens, np.ndarray) else tokens
    _, _, prompt_token_s, ttft_s, gap_s, total, _ = memory.of(at)
    load_s = float(job.adapter_wait_s[at]) if job.adapter_wait_s is not None else 0.0
    ttft_s += prompt_token_s * own + load_s
    return Forecast(ttft_s, max(0.0, ttft_s - prompt_token_s * own - gap_s), gap_s, total, memory.pool.measured)
