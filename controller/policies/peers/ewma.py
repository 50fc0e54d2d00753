"""Peak EWMA as in Finagle and Linkerd: of two drawn, the one whose decaying peak latency times load is lower."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy

# linkerd2-proxy's balancer: decay 10 s, default RTT 1 s in its newer configurations; RTT ends at the first data frame
DECAY_S = 10.0
DEFAULT_S = 1.0


@dataclass(slots=True)
class Latency:
    value_s: float
    at_s: float


Memory = dict[str, Latency]


def peak_ewma(decay_s: float = DECAY_S, default_s: float = DEFAULT_S) -> Policy:
    def current_s(memory: Memory, endpoint: str, now_s: float) -> float:
        """The estimate as of now: it decays towards zero while nothing is observed."""
        latency = memory.get(endpoint)
        if latency is None:
            return default_s
        return latency.value_s * math.exp(-(now_s - latency.at_s) / decay_s)

    def choose(fleet: Fleet, _job: Job, rng: Random, memory: Memory) -> int:
        among = np.flatnonzero(fleet.serving).tolist()
        if len(among) == 1:
            return int(among[0])

        def load(at: int) -> float:
            return current_s(memory, fleet.ids[at], fleet.now_s) * (float(fleet.own_in_flight[at]) + 1.0)

        first, second = rng.sample(among, 2)
        return int(second if load(second) < load(first) else first)

    def first_byte(fleet: Fleet, at: int, _job: Job, ttft_s: float, memory: Memory) -> None:
        """A latency above the estimate replaces it at once; one below moves it by the time that passed."""
        endpoint, now_s = fleet.ids[at], fleet.now_s
        latency = memory.setdefault(endpoint, Latency(default_s, now_s))
        weight = math.exp(-(now_s - latency.at_s) / decay_s)
        decayed_s = latency.value_s * weight + ttft_s * (1.0 - weight)
        latency.value_s = ttft_s if ttft_s > latency.value_s else decayed_s
        latency.at_s = now_s

    return Policy(choose, new=dict, first_byte=first_byte, live=False)


PEAK_EWMA = peak_ewma()
