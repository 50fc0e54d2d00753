"""NVIDIA Dynamo's KV router: blocks to prefill plus blocks held for decoding, the lowest sum (temperature 0)."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy
from controller.policies.peers.lowest import lowest

PREFILL_SCALE = 1.0  # of prefill blocks against decode blocks, called kv-overlap-score-weight earlier
BLOCK_TOKENS = 16.0


def dynamo(prefill_scale: float = PREFILL_SCALE) -> Policy:
    def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
        new = job.prompt_tokens if job.uncached is None else job.uncached
        prefill = np.maximum(fleet.queued_tokens + new, 0.0) / BLOCK_TOKENS
        decode = (fleet.own_tokens + job.prompt_tokens) / BLOCK_TOKENS
        return lowest(prefill_scale * prefill + decode, fleet, rng)

    return Policy(choose)


DYNAMO = dynamo()
