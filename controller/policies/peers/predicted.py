"""A rule like llm-d's predicted latency: time to first token and time per token from a model of the engine.

llm-d trains gradient-boosted trees online on KV usage, prompt length, queue, running, prefix share and tokens in
flight. Here the model has the engine's true form and constants instead, which flatters the rule: no training, no
sidecar, no error. It takes all endpoints to be alike, as the original documents, unless it is told each one's hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from controller.policies.fleet import Array, Fleet, Job, Policy
from controller.policies.parts import ENGINE, Engine
from controller.policies.peers.lowest import known, lowest

# latency-scorer's weights; prefix-cache-affinity-filter's threshold and the penalty above which it lets go
TTFT, TPOT = 0.8, 0.2
AFFINITY = 0.8
MOST_PENALTY_S = 5.0


def predicted(
    engines: Sequence[Engine] = (ENGINE,),
    weights: tuple[float, float] = (TTFT, TPOT),
    affinity: float = AFFINITY,
    most_penalty_s: float = MOST_PENALTY_S,
) -> Policy:
    """`engines` in the order of the fleet, or one for all."""
    step, sequence, kv, token = (
        np.array([getattr(engine, name) for engine in engines])
        for name in ("step_s", "sequence_s", "kv_token_s", "token_s")
    )

    def predict(fleet: Fleet, job: Job) -> tuple[Array, Array]:
        """Of each endpoint: seconds to the first token, seconds per token after it."""
        new = job.prompt_tokens if job.uncached is None else job.uncached
        batch = np.maximum(known(fleet.running) + known(fleet.queued) + fleet.unpaged, fleet.own_in_flight)
        context = np.maximum(known(fleet.kv_usage) * known(fleet.kv_tokens), fleet.own_tokens) + job.prompt_tokens
        gap = step + sequence * (batch + 1.0) + kv * context
        return token * (fleet.queued_tokens + new) + gap, gap

    def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
        ttft_s, gap_s = predict(fleet, job)
        score = weights[0] * _scaled(ttft_s, fleet) + weights[1] * _scaled(gap_s, fleet)
        if job.uncached is not None and job.prompt_tokens > 0:
            near = (1.0 - job.uncached / job.prompt_tokens >= affinity) & fleet.serving
            if near.any() and ttft_s[near].min() - ttft_s[fleet.serving].min() <= most_penalty_s:
                score = np.where(near, score, np.inf)
        return lowest(score, fleet, rng)

    return Policy(choose)


def _scaled(values: Array, fleet: Fleet) -> Array:
    """0 for the best, 1 for the worst, as the framework's scorers have it."""
    among = values[fleet.serving]
    low, high = among.min(), among.max()
    return np.zeros(len(fleet)) if high <= low else (values - low) / (high - low)


PREDICTED = predicted()
