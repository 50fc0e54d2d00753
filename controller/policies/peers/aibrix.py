"""AIBrix's prefix-cache rule: the best prefix among endpoints that are not far busier than the mean."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy
from controller.policies.peers.lowest import lowest

IMBALANCE = 8.0  # requests between the busiest and the idlest
DEVIATIONS = 1.0


def aibrix(imbalance: float = IMBALANCE, deviations: float = DEVIATIONS) -> Policy:
    def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
        load = fleet.own_in_flight
        among = load[fleet.serving]
        if job.uncached is None or job.prompt_tokens <= 0 or among.max() - among.min() > imbalance:
            return lowest(load, fleet, rng)
        matched = 1.0 - job.uncached / job.prompt_tokens
        fit = (matched > 0.0) & fleet.serving & (load <= among.mean() + deviations * among.std())
        if not fit.any():
            return lowest(load, fleet, rng)
        best = matched >= matched[fit].max()
        return lowest(np.where(fit & best, load, np.inf), fleet, rng)

    return Policy(choose)


AIBRIX = aibrix()
