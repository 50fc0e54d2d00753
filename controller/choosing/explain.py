"""Decisions that explain themselves: each so-many-th pick with the priced alternatives, for the log and for a page.

Pure but for the log. A pick that is not sampled costs a comparison.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.model import Request
from controller.policies.fleet import EJECTED, LOST, STALLED, TERMINATING, UNREADY, Fleet, Job
from controller.policies.kept import Prices, uncached_tokens
from controller.policies.parts import BETA, OTHERS, STANDING_S

log = logging.getLogger(__name__)

KEPT = 64
ALTERNATIVES = 8
_AGAINST = (
    (TERMINATING, "terminating"),
    (UNREADY, "unready"),
    (LOST, "lost device"),
    (STALLED, "stalled"),
    (EJECTED, "ejected"),
)


class Explainer:
    """Keeps the last explained picks, the latest first. `every` 0: none is explained."""

    def __init__(self, every: int = 0) -> None:
        self.every = every
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def wants(self, turn: int) -> bool:
        return self.every > 0 and turn % self.every == 0

    def note(self, told: dict[str, Any]) -> None:
        self._kept.appendleft(told)
        log.info("pick %s", json.dumps(told, separators=(",", ":")))

    def latest(self) -> list[dict[str, Any]]:
        return list(self._kept)


def explained(request: Request, fleet: Fleet, job: Job, at: int, memory: Any, reason: str) -> dict[str, Any]:
    """One pick: what was asked, what was chosen and why, and the best endpoints with their prices taken apart."""
    price = memory.price_s if isinstance(memory, Prices) else np.zeros(len(fleet))
    best = [at, *(index for index in price.argsort(kind="stable").tolist() if index != at)][: ALTERNATIVES + 1]
    return {
        "at_s": round(fleet.now_s, 3),
        "model": request.model,
        "priority": job.priority,
        "prompt_tokens": round(job.prompt_tokens),
        "output_tokens": None if job.output_tokens is None else round(job.output_tokens),
        "usual_output_tokens": round(fleet.mean_output_tokens),
        "reason": reason,
        "chosen": fleet.ids[at].partition("/")[0],
        "candidates": len(fleet),
        "endpoints": [_endpoint(fleet, job, index, memory) for index in best],
    }


def _endpoint(fleet: Fleet, job: Job, at: int, memory: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "endpoint": fleet.ids[at].partition("/")[0],
        "in_flight": _known(fleet.in_flight[at]),
        "waiting": _known(fleet.waiting[at]),
        "count_age_s": _known(fleet.now_s - fleet.kernel_at_s[at]),
        "own_in_flight": _known(fleet.own_in_flight[at]),
        "queued_tokens": _known(fleet.queued_tokens[at]),
        "speed": _known(fleet.speed[at]),
        "against": against(float(fleet.standing[at])),
    }
    return told | (_terms(job, at, memory) if isinstance(memory, Prices) else {})


def _terms(job: Job, at: int, memory: Prices) -> dict[str, Any]:
    """The price and what it is made of, in seconds."""
    tokens = uncached_tokens(job)
    own = float(tokens[at]) if isinstance(tokens, np.ndarray) else tokens
    _, _, prompt_token_s, ttft_s, gap_s, _, _ = memory.parts[:, at].tolist()
    output = memory.pool.mean_output_tokens if job.output_tokens is None else job.output_tokens
    terms = {
        "price_s": float(memory.price_s[at]) % STANDING_S,
        "queue_s": ttft_s - gap_s,
        "prompt_s": prompt_token_s * own,
        "step_s": gap_s,
        "decode_s": BETA * output * gap_s,
        "others_s": OTHERS * memory.mean_total * prompt_token_s * own,
        "adapter_s": 0.0 if job.adapter_wait_s is None else float(job.adapter_wait_s[at]),
    }
    rounded: dict[str, Any] = {name: round(value, 6) for name, value in terms.items()}
    return rounded | {"uncached_tokens": round(own), "measured": memory.pool.measured}


def against(standing: float) -> Sequence[str]:
    found = []
    for unit, name in _AGAINST:
        if standing >= unit:
            standing -= unit
            found.append(name)
    return found


def _known(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
