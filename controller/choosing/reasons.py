"""Why an endpoint was chosen, and how the others stood, for metrics and for people. Pure; nothing here decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from controller.choosing.pick import EJECTED_STEP, LOST_STEP, STALLED_STEP, TERMINATING_STEP, UNREADY_STEP
from controller.model import Reason
from controller.policies.fleet import EJECTED, LOST, STALLED, TERMINATING, UNREADY, Array, Fleet, Job
from controller.policies.kept import Prices
from controller.policies.parts import STANDING_S
from controller.policies.price import prices

_STEPS = (
    (TERMINATING, TERMINATING_STEP),
    (UNREADY, UNREADY_STEP),
    (LOST, LOST_STEP),
    (STALLED, STALLED_STEP),
    (EJECTED, EJECTED_STEP),
)


def reason(fleet: Fleet, job: Job, at: int, memory: Any) -> Reason:
    if len(fleet) == 1:
        return Reason.ONLY
    if not isinstance(memory, Prices):
        return Reason.RULE
    if fleet.standing[at] > 0.0:
        return Reason.LOST if fleet.standing[at] >= LOST else Reason.STALLED
    if not memory.pool.measured:
        return Reason.LEAST_WORK
    if job.uncached is not None and _matters(memory.last_s, memory.cached_s(job), at):
        return Reason.PREFIX
    if job.adapter_wait_s is not None and _matters(memory.price_s, -job.adapter_wait_s, at):
        return Reason.ADAPTER
    return Reason.TIE if memory.tied > 1 else Reason.CHEAPEST


def _matters(price_s: Array | list[float], saved_s: Array | list[float], at: int) -> bool:
    """Whether another endpoint would have been cheaper without what was saved."""
    if isinstance(price_s, list) and isinstance(saved_s, list):
        of_few = [price + saved for price, saved in zip(price_s, saved_s, strict=True)]
        return of_few[at] > min(of_few) * (1.0 + 1e-9)
    without = np.asarray(price_s) + saved_s
    return bool(without[at] > without.min() * (1.0 + 1e-9))


def ranks(fleet: Fleet, price: Array) -> list[float]:
    """Prices as people read them: what speaks against an endpoint as a step of its rank."""
    rank = np.where(price >= STANDING_S, price % STANDING_S, price)
    rank = np.where(rank < EJECTED_STEP, rank, 0.0)
    left = fleet.standing.copy()
    for unit, step in _STEPS:
        has = left >= unit
        rank = rank + np.where(has, step, 0.0)
        left -= np.where(has, unit, 0.0)
    told: list[float] = rank.tolist()
    return told


def usual_ranks(fleet: Fleet, job: Job) -> list[float]:
    """The ranks that a request would be chosen by. Leaves what the policy keeps untouched."""
    touched = fleet.touched
    told = ranks(fleet, prices(fleet, job, Prices()))
    fleet.touched = touched
    return told
