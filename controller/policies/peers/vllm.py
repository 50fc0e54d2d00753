"""vLLM's own balancer between data-parallel ranks: four times the waiting plus the running requests, counts of every
100 ms, one more waiting for each request sent since.
"""

from __future__ import annotations

from random import Random
from typing import Any

from controller.policies.fleet import Fleet, Job, Policy
from controller.policies.peers.lowest import known, lowest

WAITING = 4.0


def vllm_dp(waiting: float = WAITING) -> Policy:
    def choose(fleet: Fleet, _job: Job, rng: Random, _memory: Any) -> int:
        return lowest(waiting * (known(fleet.queued) + fleet.unpaged) + known(fleet.running), fleet, rng)

    return Policy(choose)


VLLM_DP = vllm_dp()
