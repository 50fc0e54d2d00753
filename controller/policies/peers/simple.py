"""Balancers that know nothing of inference: random, round robin, two choices, least request, fixed weights."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy
from controller.policies.peers.lowest import lowest


class Turn:
    """Whose turn is next."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = 0


def at_random(fleet: Fleet, _job: Job, rng: Random, _memory: Any) -> int:
    return rng.choice(np.flatnonzero(fleet.serving).tolist())


def round_robin(fleet: Fleet, _job: Job, _rng: Random, turn: Turn) -> int:
    among = np.flatnonzero(fleet.serving)
    turn.next += 1
    return int(among[(turn.next - 1) % len(among)])


def two_choices(fleet: Fleet, _job: Job, rng: Random, _memory: Any) -> int:
    """The less loaded of two drawn: Envoy's LEAST_REQUEST with equal weights and its default choice_count of 2.

    As Envoy, it draws with replacement and counts its own active requests.
    """
    among = np.flatnonzero(fleet.serving).tolist()
    first, second = rng.choice(among), rng.choice(among)
    return int(second if fleet.own_in_flight[second] < fleet.own_in_flight[first] else first)


def least_request(fleet: Fleet, _job: Job, rng: Random, _memory: Any) -> int:
    """The fewest own active requests of all: Envoy's LEAST_REQUEST with FULL_SCAN."""
    return lowest(fleet.own_in_flight, fleet, rng)


def weighted(weights: Sequence[float]) -> Policy:
    """Least request with a weight an operator gave each endpoint, in the order of the fleet.

    Envoy's weighted form prefers weight / (active + 1) with active_request_bias 1.0; here all endpoints are compared.
    """
    inverse = 1.0 / np.asarray(weights, dtype=np.float64)

    def choose(fleet: Fleet, _job: Job, rng: Random, _memory: Any) -> int:
        return lowest((fleet.own_in_flight + 1.0) * inverse, fleet, rng)

    return Policy(choose, live=False)


RANDOM = Policy(at_random)
ROUND_ROBIN = Policy(round_robin, new=Turn)
P2C = Policy(two_choices)
LEAST_REQUEST = Policy(least_request)
