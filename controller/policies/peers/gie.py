"""The Gateway API Inference Extension's pickers: release 0.3's decision tree, and the weighted scorers since 1.0 that
llm-d's router uses as well. Both go by engine pages alone, scraped every 50 ms by default.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.policies.fleet import Array, Fleet, Job, Policy
from controller.policies.paged import Paged
from controller.policies.peers.lowest import known, lowest

# release 0.3: QUEUING_THRESHOLD_LORA, QUEUE_THRESHOLD_CRITICAL, KV_CACHE_THRESHOLD, LORA_AFFINITY_THRESHOLD
LOW_QUEUE = 128
SHEDDABLE_QUEUE = 5
SHEDDABLE_KV = 0.8
LORA_AFFINITY = 0.999
# default weights of queue-scorer, kv-cache-utilization-scorer and prefix-cache-scorer
WEIGHTS = (2.0, 2.0, 3.0)

Indexes = npt.NDArray[np.intp]


def tree(
    low_queue: int = LOW_QUEUE,
    queue_limit: int = SHEDDABLE_QUEUE,
    kv_limit: float = SHEDDABLE_KV,
    affinity: float = LORA_AFFINITY,
) -> Policy:
    """Filters of release 0.3; a filter that leaves nobody passes all on. Sheddable requests are not shed here.

    Only a positive priority is Critical; Standard goes the way of the sheddable ones, as in the release.
    """

    def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
        queue, kv = known(fleet.queued), known(fleet.kv_usage)
        among = np.flatnonzero(fleet.serving)
        if job.priority > 0:
            short = among[queue[among] < low_queue]
            if len(short):
                among = _least(kv, _least_queue(queue, _affine(job, short, rng, affinity)))
            else:
                among = _least(kv, _affine(job, _least_queue(queue, among), rng, affinity))
        else:
            fit = among[(queue[among] <= queue_limit) & (kv[among] <= kv_limit)]
            among = _least(kv, _affine(job, _least_queue(queue, fit if len(fit) else among), rng, affinity))
        return int(among[rng.randrange(len(among))])

    return Policy(choose)


def _least(values: Array, among: Indexes) -> Indexes:
    """The lowest n-th part of the range that values span."""
    own = values[among]
    least: Indexes = among[own <= own.min() + (own.max() - own.min()) / len(among)]
    return least


def _least_queue(queue: Array, among: Indexes) -> Indexes:
    own = queue[among]
    least: Indexes = among[own <= own.min() + (own.max() - own.min()) // len(among)]
    return least


def _affine(job: Job, among: Indexes, rng: Random, affinity: float) -> Indexes:
    """Endpoints that have the adapter, with the probability `affinity`; else those that have not."""
    if job.paged is not None:
        return _affine_by_page(job.paged, among, rng, affinity)
    if job.adapter_wait_s is None:
        return among
    has = job.adapter_wait_s[among] == 0.0
    if not has.any() or has.all():
        return among
    affine: Indexes = among[has] if rng.random() < affinity else among[~has]
    return affine


def _affine_by_page(pages: Paged, among: Indexes, rng: Random, affinity: float) -> Indexes:
    """As the release: those where it works or waits, or those that have room, all others aside."""
    held, roomy = among[pages.held[among]], among[(pages.room & ~pages.held)[among]]
    if len(held) and len(roomy):
        return held if rng.random() < affinity else roomy
    return next((group for group in (held, roomy) if len(group)), among)


def scorers(weights: tuple[float, float, float] = WEIGHTS, lora: float = 1.0) -> Policy:
    """Queue, KV cache and prefix scores, weighted; the highest sum, ties by chance.

    The queue score is normalised over the candidates: one waiting request more counts as much as a hundred.
    """

    def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
        score = weights[0] * _queue_score(fleet) + weights[1] * (1.0 - np.clip(known(fleet.kv_usage), 0.0, 1.0))
        if job.uncached is not None and job.prompt_tokens > 0:
            score = score + weights[2] * np.clip(1.0 - job.uncached / job.prompt_tokens, 0.0, 1.0)
        if job.adapter_wait_s is not None:  # lora-affinity-scorer
            by_page = job.paged.score if job.paged else np.where(job.adapter_wait_s == 0.0, 1.0, 0.8)
            score = score + lora * by_page
        return lowest(-score, fleet, rng)

    return Policy(choose)


def _queue_score(fleet: Fleet) -> Array:
    queue = known(fleet.queued)
    among = queue[fleet.serving]
    low, high = among.min(), among.max()
    return np.ones(len(fleet)) if high == low else (high - queue) / (high - low)


TREE = tree()
SCORERS = scorers()
