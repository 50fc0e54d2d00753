"""The rules that choose an endpoint: ranks in, index out. Pure: chance is an argument.

A rank is an endpoint's load in requests, plus a step far above any load for each thing that speaks against it. So one
minimum finds the least loaded of the best group, and something is picked whenever anything exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from controller.model import Reason

STALLED_STEP = 1e9
UNREADY_STEP = 2e9
TERMINATING_STEP = 4e9
LOST_STEP = 8e9  # an accelerator of the pod is lost: it may accept requests and fail each

Policy = Callable[[Sequence[float], Random, int], tuple[int, Reason]]


def sonde(ranks: Sequence[float], rng: Random, _turn: int) -> tuple[int, Reason]:
    """The lowest rank; among equals by chance, so that pickers that see the same numbers do not all choose the same."""
    lowest = min(ranks)
    equals = ranks.count(lowest)
    at = ranks.index(lowest)
    if equals > 1:
        for _ in range(rng.randrange(equals)):
            at = ranks.index(lowest, at + 1)
    return at, _reason(lowest, equals, len(ranks))


def _reason(lowest: float, equals: int, candidates: int) -> Reason:
    if lowest >= LOST_STEP:
        return Reason.LOST
    if lowest >= UNREADY_STEP:
        return Reason.UNREADY
    if lowest >= STALLED_STEP:
        return Reason.STALLED
    if candidates == 1:
        return Reason.ONLY
    return Reason.TIE if equals > 1 else Reason.FEWEST


def round_robin(ranks: Sequence[float], _rng: Random, turn: int) -> tuple[int, Reason]:
    """Ready endpoints in turn, whatever is measured."""
    ready = _ready(ranks)
    return ready[turn % len(ready)], Reason.ROUND_ROBIN


def at_random(ranks: Sequence[float], rng: Random, _turn: int) -> tuple[int, Reason]:
    """Any ready endpoint, whatever is measured."""
    return rng.choice(_ready(ranks)), Reason.RANDOM


def _ready(ranks: Sequence[float]) -> list[int]:
    return [at for at, rank in enumerate(ranks) if rank < UNREADY_STEP] or list(range(len(ranks)))


POLICIES: dict[str, Policy] = {"sonde": sonde, "round-robin": round_robin, "random": at_random}
