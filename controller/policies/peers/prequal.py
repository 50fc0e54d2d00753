"""Prequal (NSDI '24): probes in flight and latency of a few servers, and picks by hot-cold lexicographic order."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from random import Random

import numpy as np

from controller.policies.fleet import Fleet, Job, Policy

# the paper's defaults, as its description and public re-implementations give them
POOL = 16
AGE_LIMIT_S = 1.0
PROBES = 3  # a query
Q_RIF = 0.84  # quantile of requests in flight from which on a server is hot
SAMPLES = 16  # of latencies at a server


@dataclass(slots=True)
class Probe:
    endpoint: str
    at_s: float
    in_flight: float
    latency_s: float
    uses: int = 0


@dataclass(slots=True)
class Memory:
    probes: list[Probe] = field(default_factory=list)
    latencies: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)  # (in flight, latency)
    sent_at: dict[int, float] = field(default_factory=dict)  # in flight when a job was sent, by identity of the job
    turn: int = 0
    rng: Random = field(default_factory=lambda: Random(0))


def prequal(q_rif: float = Q_RIF, probes: int = PROBES, pool: int = POOL) -> Policy:
    def choose(fleet: Fleet, _job: Job, rng: Random, memory: Memory) -> int:
        places = {name: at for at, name in enumerate(fleet.ids) if fleet.serving[at]}
        held = [one for one in memory.probes if one.at_s > fleet.now_s - AGE_LIMIT_S and one.endpoint in places]
        memory.probes = held
        if len(held) < 2:  # too little is known: any
            return rng.choice(list(places.values()))
        best = _hot_cold(held, q_rif)
        best.uses += 1
        best.in_flight += 1.0  # what is being sent now
        if best.uses >= _reuses(len(places), probes, pool):
            held.remove(best)
        return places[best.endpoint]

    def sent(fleet: Fleet, at: int, job: Job, memory: Memory) -> None:
        """Probes go out with every query; their answers serve the next ones. One probe leaves: the oldest or worst."""
        memory.sent_at[id(job)] = _in_flight(fleet, at)
        if len(memory.probes) > 2:
            memory.turn += 1
            _remove(memory.probes, q_rif, oldest=bool(memory.turn % 2))
        among = np.flatnonzero(fleet.serving).tolist()
        for index in memory.rng.sample(among, min(probes, len(among))):
            answer = _probe(fleet, index, memory)  # instead of an older answer of the same server
            memory.probes = [one for one in memory.probes if one.endpoint != answer.endpoint]
            memory.probes.append(answer)
        del memory.probes[: max(0, len(memory.probes) - min(pool, 2 * len(among)))]

    return Policy(choose, new=Memory, sent=sent, first_byte=_observe, ended=_forget, live=False)


def _hot_cold(held: list[Probe], q_rif: float) -> Probe:
    """The lowest latency among cold ones; if all are hot, the fewest in flight."""
    ordered = sorted(one.in_flight for one in held)
    threshold = ordered[min(len(ordered) - 1, int(q_rif * len(ordered)))]
    cold = [one for one in held if one.in_flight < threshold]
    if cold:
        return min(cold, key=lambda one: one.latency_s)
    return min(held, key=lambda one: one.in_flight)


def _remove(held: list[Probe], q_rif: float, oldest: bool) -> None:
    if oldest:
        held.pop(0)
        return
    ordered = sorted(one.in_flight for one in held)
    threshold = ordered[min(len(ordered) - 1, int(q_rif * len(ordered)))]
    hot = [one for one in held if one.in_flight >= threshold]
    held.remove(max(hot, key=lambda one: one.in_flight) if hot else max(held, key=lambda one: one.latency_s))


def _reuses(servers: int, probes: int, pool: int) -> float:
    """b = max(1, 2 / ((1 - m/n) * r_probe - r_remove)), with the pool m at most half of the n servers."""
    share = min(pool, servers / 2) / servers
    rest = (1.0 - share) * probes - 1.0
    return max(1.0, 2.0 / rest) if rest > 0 else float("inf")


def _in_flight(fleet: Fleet, at: int) -> float:
    """What a server would answer: its own count; without one, ours."""
    count = float(fleet.in_flight[at])
    return count + float(fleet.reserved[at]) if count == count else float(fleet.own_in_flight[at])


def _probe(fleet: Fleet, at: int, memory: Memory) -> Probe:
    in_flight = _in_flight(fleet, at)
    samples = memory.latencies.get(fleet.ids[at])
    latency_s = 0.0
    if samples:
        near = sorted(samples, key=lambda sample: abs(sample[0] - in_flight))[:8]
        latency_s = statistics.median(latency for _, latency in near)
    return Probe(fleet.ids[at], fleet.now_s, in_flight, latency_s)


def _observe(fleet: Fleet, at: int, job: Job, ttft_s: float, memory: Memory) -> None:
    in_flight = memory.sent_at.get(id(job))
    if in_flight is not None:
        memory.latencies.setdefault(fleet.ids[at], deque(maxlen=SAMPLES)).append((in_flight, ttft_s))


def _forget(_fleet: Fleet, _at: int, job: Job, _whole_s: float, memory: Memory) -> None:
    memory.sent_at.pop(id(job), None)


PREQUAL = prequal()
