"""How the inference extension and llm-d's router refuse requests: by saturation of the pool, from engine pages.

Saturation is the mean over endpoints of the larger of queue / 5 and KV usage / 0.8. Only requests of negative priority
are refused; flow control, which lets them wait instead, is not modelled.
"""

from __future__ import annotations

from random import Random

import numpy as np

from controller.policies.fleet import Fleet, Job
from controller.policies.peers.lowest import known

QUEUE = 5.0
KV = 0.8
POWER, FACTOR = 5.0, 300.0  # of probabilistic-admitter


def saturation(fleet: Fleet) -> float:
    among = fleet.serving
    return float(np.maximum(known(fleet.queued)[among] / QUEUE, known(fleet.kv_usage)[among] / KV).mean())


def when_saturated(fleet: Fleet, job: Job, _rng: Random) -> bool:
    return job.priority < 0 and saturation(fleet) >= 1.0


def by_chance(fleet: Fleet, job: Job, rng: Random) -> bool:
    return job.priority < 0 and rng.random() < min(1.0, FACTOR * saturation(fleet) ** POWER)
