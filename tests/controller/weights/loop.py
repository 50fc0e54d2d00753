"""A closed loop in simulated time: connections go by weights, weights by prices, and prices by the connections.

Pods are queues: requests come by chance and each takes a pod's time by chance, so a price rises without bound towards
saturation, more steeply than an engine's does. Prices are seen late and told late. Seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from controller.policies.fleet import Array
from controller.weights.scale import MOST, Scale

STEP_S = 0.02
LOOK_S, TELL_S = 0.25, 1.0


class Rule(Protocol):
    def look(self, price_s: Array, now: float) -> None: ...
    def weights(self, now: float) -> Array: ...


class Ours:
    def __init__(self, pods: int) -> None:
        self.scale = Scale()
        self._ids = [str(at) for at in range(pods)]

    def look(self, price_s: Array, now: float) -> None:
        self.scale.look(self._ids, price_s, np.zeros(len(self._ids)), True, now)

    def weights(self, now: float) -> Array:
        self.scale.tell(now)
        return self.scale.told


class Direct:
    """Weights as the prices of the last look are: what ours must be better than."""

    def __init__(self) -> None:
        self._price: Array = np.ones(1)

    def look(self, price_s: Array, now: float) -> None:
        self._price = price_s

    def weights(self, now: float) -> Array:
        return np.clip(np.median(self._price) / self._price, 1 / MOST, MOST)


@dataclass(frozen=True)
class Run:
    shares: Array  # by time and pod
    requests: Array  # in the pods, likewise

    def later(self, share: float = 1 / 3) -> Run:
        at = int(len(self.shares) * share)
        return Run(self.shares[at:], self.requests[at:])

    @property
    def mean(self) -> Array:
        return np.asarray(self.shares.mean(0))

    @property
    def swing(self) -> float:
        """Standard deviation over time of the share that varies most."""
        return float(self.shares.std(0).max())


def run(rule: Rule, slow: Sequence[float], busy: float, delay_s: float, seconds: float, request_s: float = 0.01) -> Run:
    """`slow`: of each pod; `busy`: share of what all pods can do; `delay_s`: from a count to the look at its price."""
    chance, slowness = np.random.default_rng(1), np.array(slow)
    rate = busy * (1 / slowness).sum() / request_s
    requests, told = np.zeros(len(slow)), np.ones(len(slow))
    prices, shares, counts = [], [], []
    for step in range(int(seconds / STEP_S)):
        now = step * STEP_S
        share = told / told.sum()
        requests = requests + chance.poisson(rate * STEP_S * share)
        done = chance.poisson(np.where(requests > 0, STEP_S / slowness / request_s, 0.0))
        requests = np.maximum(requests - done, 0.0)
        prices.append(slowness * (requests + 1.0) * request_s)
        if step % round(LOOK_S / STEP_S) == 0:
            rule.look(prices[max(0, step - round(delay_s / STEP_S))], now)
        if step % round(TELL_S / STEP_S) == 0 and step:
            told = rule.weights(now)
        shares.append(share)
        counts.append(requests)
    return Run(np.array(shares), np.array(counts))
