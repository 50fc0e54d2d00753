"""The cache-aware rule of SGLang's model gateway and vLLM's router: prefixes, until loads differ too much."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy
from controller.policies.peers.lowest import lowest

ABSOLUTE = 64.0
RELATIVE = 1.5
MATCH = 0.3


def sglang(absolute: float = ABSOLUTE, relative: float = RELATIVE, match: float = MATCH) -> Policy:
    def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
        """Unbalanced: the shortest. Else the best match, if it is good enough. Else the shortest."""
        load = fleet.own_in_flight
        among = load[fleet.serving]
        low, high = among.min(), among.max()
        unbalanced = high - low > absolute and high > relative * low
        if unbalanced or job.uncached is None or job.prompt_tokens <= 0:
            return lowest(load, fleet, rng)
        matched = np.where(fleet.serving, 1.0 - job.uncached / job.prompt_tokens, -1.0)
        if matched.max() <= match:
            return lowest(load, fleet, rng)
        return lowest(np.where(matched >= matched.max(), load, np.inf), fleet, rng)

    return Policy(choose)


SGLANG = sglang()
