"""What a run came to: percentiles, goodput and failures of everything offered. Pure.

A request that failed or was shed counts as offered and as not good; its time to first token counts as the client's
whole patience, so that nobody gains by dropping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.policy.requests import Request
from bench.policy.simulation import TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Measures:
    requests: int
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p99_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    good: float  # share of offered requests within both objectives
    failed: float
    shed: float
    cached: float  # share of prompt tokens found in caches
    good_by_class: dict[str, float]

    def plain(self) -> dict[str, object]:
        return asdict(self)


def measure(requests: Sequence[Request], since_s: float, ttft_slo_s: float, tpot_slo_s: float) -> Measures:
    """Of the requests that pickers were asked for since then."""
    own = [one for one in requests if one.at_s >= since_s and one.bypass_pod < 0]
    ttft = np.array([_or_patience(one, one.ttft_s) for one in own])
    e2e = np.array([_or_patience(one, one.e2e_s) for one in own])
    tpot = np.array([one.tpot_s for one in own if answered(one) and one.output_tokens > 1] or [math.nan])
    good = np.array([_is_good(one, ttft_slo_s, tpot_slo_s) for one in own])
    classes = np.array([one.priority for one in own])
    return Measures(
        len(own),
        float(np.quantile(ttft, 0.5)),
        float(np.quantile(ttft, 0.99)),
        float(np.quantile(tpot, 0.99)),
        float(np.quantile(e2e, 0.5)),
        float(np.quantile(e2e, 0.99)),
        float(good.mean()),
        sum(one.failed or not (one.over or one.shed) for one in own) / len(own),
        sum(one.shed for one in own) / len(own),
        sum(one.cached for one in own) / sum(one.prompt_tokens for one in own),
        {str(one): float(good[classes == one].mean()) for one in sorted(set(classes.tolist()))},
    )


def answered(request: Request) -> bool:
    return request.over and not request.failed and not request.shed


def _or_patience(request: Request, value_s: float) -> float:
    return value_s if answered(request) else max(TIMEOUT_S, value_s if value_s == value_s else 0.0)


def _is_good(request: Request, ttft_slo_s: float, tpot_slo_s: float) -> bool:
    return answered(request) and request.ttft_s <= ttft_slo_s and not request.tpot_s > tpot_slo_s


def last_sent_s(requests: Sequence[Request], pod: int, since_s: float, until_s: float) -> float:
    """How long after `since_s` requests were still sent to a pod, single trials a second apart not counted."""
    sent = [one.sent_s - since_s for one in requests if one.pod == pod and since_s <= one.sent_s < until_s]
    last_s = 0.0
    for at_s in sent:
        if at_s - last_s > 1.0:
            break
        last_s = at_s
    return last_s


def ratio(peer: Sequence[float], own: Sequence[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Geometric mean over paired seeds of peer over own, and its 95 % bootstrap interval."""
    logs = np.log(np.array(peer) / np.array(own))
    drawn = rng.choice(logs, (2000, len(logs))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return math.exp(logs.mean()), math.exp(low), math.exp(high)


def interval(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % bootstrap interval."""
    numbers = np.array(values)
    drawn = rng.choice(numbers, (2000, len(numbers))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(numbers.mean()), float(low), float(high)
