"""Workloads: when requests come and how long their prompts and answers are. Pure and seeded.

Lengths are drawn from the quantile tables of public traces by linear interpolation between quantiles: the
distributions have two humps, which no fitted lognormal keeps. Arrivals are Poisson, Gamma renewals or on/off bursts.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution as (probability, value) points, from 0 to 1, both rising."""

    points: tuple[tuple[float, float], ...]

    def at(self, probability: float) -> float:
        """The value that this share of the distribution does not exceed."""
        index = max(1, bisect_left(self.points, (probability, -math.inf)))
        (p0, v0), (p1, v1) = self.points[index - 1], self.points[min(index, len(self.points) - 1)]
        return v1 if p1 == p0 else v0 + (v1 - v0) * (probability - p0) / (p1 - p0)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of prompts and of answers, drawn independently (the traces' correlation is about 0)."""

    prompt: Quantiles
    output: Quantiles


def _quantiles(*values: float) -> Quantiles:
    """Points at the quantiles the tables give: 0, 10, 25, 50, 75, 90, 95, 99 and 100 %."""
    return Quantiles(tuple(zip((0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1), values, strict=True)))


# Azure LLM inference trace 2023, quantiles computed from the published CSV files; the minimum is taken as 1 token,
# and the code trace's output quantiles below the median are not known, so it rises straight from 1 to 13.
LENGTHS = {
    "azure-conv": Lengths(
        _quantiles(1, 207, 396, 1020, 1189, 2734, 4083, 4142, 14050),
        _quantiles(1, 54, 85, 129, 395, 424, 451, 601, 1000),
    ),
    "azure-code": Lengths(
        _quantiles(1, 147, 578, 1469, 2744, 5188, 7303, 7436, 7437),
        Quantiles(((0, 1), (0.5, 13), (0.75, 24), (0.9, 55), (0.95, 90), (0.99, 251), (1, 1899))),
    ),
}


class Arrivals(Enum):
    """POISSON; GAMMA: renewals with a coefficient of variation; ON_OFF: Poisson at a higher rate in bursts only."""

    POISSON = "poisson"
    GAMMA = "gamma"
    ON_OFF = "on-off"


@dataclass(frozen=True, slots=True)
class Workload:
    """What to send. Table lengths are multiplied by the scales, so that two cores can serve what a GPU did."""

    rate_per_s: float
    duration_s: float
    lengths: str = "azure-conv"
    prompt_scale: float = 0.25
    output_scale: float = 0.2
    min_output_tokens: int = 1
    arrivals: Arrivals = Arrivals.POISSON
    variation: float = 2.0  # GAMMA: standard deviation of the time between arrivals over its mean
    on_s: float = 1.0  # ON_OFF: mean length of a burst, and of the silence after it
    off_s: float = 1.0
    stream_share: float = 1.0
    groups: int = 0  # of prompts that begin alike; 0: none do
    shared_tokens: int = 0  # of each beginning, more than the table's lengths


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a schedule: when it is sent, seconds after the start, and how long it is."""

    index: int
    at_s: float
    prompt_tokens: int
    output_tokens: int
    stream: bool
    group: int = 0
    shared_tokens: int = 0
    objective: str = ""  # the InferenceObjective it names


def schedule(workload: Workload, seed: int) -> tuple[Request, ...]:
    """The requests of a workload in order of time; the same for the same seed."""
    times = Random(f"{seed} arrivals")
    lengths = Random(f"{seed} lengths")
    return tuple(_request(index, at_s, workload, lengths) for index, at_s in enumerate(arrivals(workload, times)))


def arrivals(workload: Workload, rng: Random) -> Iterator[float]:
    """Arrival times from 0 to the workload's duration."""
    return itertools.takewhile(lambda at_s: at_s < workload.duration_s, _endless(workload, rng))


def _endless(workload: Workload, rng: Random) -> Iterator[float]:
    if workload.arrivals is Arrivals.ON_OFF:
        yield from _bursts(workload, rng)
        return
    shape = 1.0 if workload.arrivals is Arrivals.POISSON else workload.variation**-2
    at_s = 0.0
    while True:
        at_s += rng.gammavariate(shape, 1 / (shape * workload.rate_per_s))
        yield at_s


def _bursts(workload: Workload, rng: Random) -> Iterator[float]:
    """Bursts and silences of exponential length; the rate inside bursts makes the mean rate the workload's."""
    rate_per_s = workload.rate_per_s * (workload.on_s + workload.off_s) / workload.on_s
    start_s = 0.0
    while True:
        end_s = start_s + rng.expovariate(1 / workload.on_s)
        at_s = start_s + rng.expovariate(rate_per_s)
        while at_s < end_s:
            yield at_s
            at_s += rng.expovariate(rate_per_s)
        start_s = end_s + (rng.expovariate(1 / workload.off_s) if workload.off_s else 0.0)


def _request(index: int, at_s: float, workload: Workload, rng: Random) -> Request:
    table = LENGTHS[workload.lengths]
    prompt = table.prompt.at(rng.random()) * workload.prompt_scale
    output = table.output.at(rng.random()) * workload.output_scale
    stream = rng.random() < workload.stream_share
    tokens, answer = max(1, round(prompt)), max(workload.min_output_tokens, round(output))
    if not workload.groups:
        return Request(index, at_s, tokens, answer, stream)
    group = rng.randrange(workload.groups)
    return Request(index, at_s, tokens + workload.shared_tokens, answer, stream, group, workload.shared_tokens)
