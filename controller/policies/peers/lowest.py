"""The last step of most rules: the lowest score among endpoints that serve, ties by chance."""

from __future__ import annotations

from random import Random

import numpy as np

from controller.policies.fleet import Array, Fleet


def lowest(scores: Array, fleet: Fleet, rng: Random) -> int:
    """Index of the lowest score; what does not serve is out, what has no score is last."""
    among = np.where(fleet.serving, scores, np.inf)
    best = float(np.fmin.reduce(among))
    if best == np.inf or best != best:
        return rng.choice(np.flatnonzero(fleet.serving).tolist())
    at = np.flatnonzero(among == best)
    return int(at[0]) if len(at) == 1 else int(at[rng.randrange(len(at))])


def known(values: Array, otherwise: float = 0.0) -> Array:
    """What most pickers make of a missing metric: zero."""
    return np.where(np.isnan(values), otherwise, values)
