"""What befalls the pods in each scenario of a comparison, and what is sent: pure values. Times are shares of a load's.

Pod 0 is the one that something happens to; in `mixed` it is every second pod.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from lab.contests.workload import Request, Workload

BEGINS, ENDS = 0.3, 0.75  # of the load's duration


@dataclass(frozen=True, slots=True)
class Turn:
    """At a share of the duration, a pod's knobs are turned, or it becomes ready."""

    at: float
    pod: int
    slow: float | None = None
    hang: float | None = None  # for this share of the duration
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Class:
    """Requests that name one InferenceObjective."""

    name: str
    priority: int
    share: float


CLASSES = (Class("critical", 1, 0.2), Class("standard", 0, 0.6), Class("sheddable", -1, 0.2))


@dataclass(frozen=True, slots=True)
class Trial:
    """One scenario. `slow_pods`: every second pod takes so many times as long; `slow`: each does."""

    what: str
    turns: tuple[Turn, ...] = ()
    slow_pods: float = 1.0
    slow: float = 1.0
    pickers: int = 1
    bypass: float = 0.0  # of the rate, sent straight to two pods besides
    absent: tuple[int, ...] = ()  # not ready at first
    groups: int = 0
    shared_tokens: int = 0
    classes: tuple[Class, ...] = ()
    budget_s: float | None = None  # for a first token; what comes later is no good


SCENARIOS = {
    "homogeneous": Trial("all pods alike"),
    "mixed": Trial("every second pod takes 2.5 times as long", slow_pods=2.5),
    "straggler": Trial("one pod takes twice as long for a while", (Turn(BEGINS, 0, slow=2.0), Turn(ENDS, 0, slow=1.0))),
    "hang": Trial("one pod stands still for a while", (Turn(BEGINS, 0, hang=ENDS - BEGINS),)),
    "cold": Trial(
        "a pod joins and takes three times as long at first",
        (Turn(BEGINS, 0, slow=3.0, ready=True), Turn(ENDS, 0, slow=1.0)),
        absent=(0,),
    ),
    "bypass": Trial("a third more traffic straight to two pods", bypass=1 / 3),
    "pickers": Trial("four gateways, each with its own controller", pickers=4),
    "prefixes": Trial("prompts of 12 groups that begin alike", groups=12, shared_tokens=768),
    "overload": Trial(
        "all pods take six times as long: too much is sent, a fifth of it critical, a fifth sheddable",
        slow=6.0,
        classes=CLASSES,
        budget_s=2.0,
    ),
}


def classed(requests: Sequence[Request], trial: Trial, seed: int) -> Sequence[Request]:
    """The requests with the objective that each names."""
    if not trial.classes:
        return requests
    names, shares = [one.name for one in trial.classes], [one.share for one in trial.classes]
    chance = Random(f"{seed} classes")
    return [replace(one, objective=chance.choices(names, shares)[0]) for one in requests]


def workload(trial: Trial, rate_per_s: float, duration_s: float) -> Workload:
    """What clients send through the gateways. Shared beginnings are long, so fewer requests are as much work."""
    scale = 0.6 if trial.groups else 1.0
    return Workload(
        rate_per_s * scale,
        duration_s,
        output_scale=0.12,
        min_output_tokens=4,
        groups=trial.groups,
        shared_tokens=trial.shared_tokens,
    )
