"""LMETRIC (arXiv 2603.15202): new prompt tokens times batch size; nothing to weigh against each other."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy
from controller.policies.peers.lowest import lowest


def choose(fleet: Fleet, job: Job, rng: Random, _memory: Any) -> int:
    """The batch with this request in it, by own counts: they are fresher than any page."""
    new = job.prompt_tokens if job.uncached is None else job.uncached
    return lowest(np.maximum(new, 1.0) * (fleet.own_in_flight + 1.0), fleet, rng)


LMETRIC = Policy(choose)
