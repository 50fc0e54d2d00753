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

from random import Random
from typing import NamedTuple

import numpy as np

from controller.policies.fleet import Array, Fleet, Job, Policy
from controller.policies.kept import Prices
from controller.policies.parts import BETA, LONGEST_S, MOST_TOKENS, OTHERS, STANDING_S

TIE = 0.02  # prices so near to the lowest are equal: several pickers see the same numbers
TIE_MOST_S = 0.002  # but no more than this: if all numbers are wrong and huge, what is sure must still decide


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
