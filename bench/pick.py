"""What one choice costs: `python -m bench.pick [--policy NAME]`. Processor time, without hashing prompts.

Each choice is noted in the fleet as the controller does it, so the next one cannot use what the last computed for that
endpoint. The noting itself is measured alone and taken off. `anew` is what computing all endpoints costs, which the
controller does ten times a second when it has heard from agents, not in a pick. Prints the best of several rounds,
which is what the code costs, and the median, which is what it cost on this machine at this moment.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from random import Random

import numpy as np

from controller.policies.fleet import Fleet, Job
from controller.policies.registry import POLICIES

SIZES = (8, 32, 64, 256, 1000, 4000)
ROUNDS = 15
CHOICES = 400
LIMITS_US = {8: 20, 32: 20, 64: 20, 256: 20, 4000: 50}


def busy_fleet(size: int, seed: int = 1) -> Fleet:
    """A pool in the middle of its day: everything known, one endpoint in ten slower."""
    rng = np.random.default_rng(seed)
    fleet = Fleet([f"10.0.{at >> 8}.{at & 255}:8000" for at in range(size)], now_s=100.0)
    fleet.in_flight[:] = rng.integers(0, 40, size)
    fleet.waiting[:] = np.minimum(rng.integers(0, 4, size), fleet.in_flight)
    fleet.kernel_at_s[:] = 99.99
    fleet.gap_s[:] = rng.uniform(0.008, 0.02, size)
    fleet.srtt_s[:] = 3e-4
    fleet.own_in_flight[:] = fleet.in_flight // 2
    fleet.own_tokens[:] = fleet.own_in_flight * 900
    fleet.speed[rng.random(size) < 0.1] = 2.0
    fleet.sent_rate[:] = rng.uniform(0, 10_000, size)
    return fleet


def note(fleet: Fleet, at: int, job: Job) -> None:
    fleet.reserved[at] += 1
    fleet.own_waiting[at] += 1
    fleet.own_in_flight[at] += 1
    fleet.queued_tokens[at] += job.prompt_tokens
    fleet.own_tokens[at] += job.prompt_tokens
    fleet.touch(at)


def cost_us(name: str, size: int) -> tuple[float, float]:
    """The best and the median round, without what noting the choices costs."""
    policy, rng, fleet = POLICIES[name], Random(1), busy_fleet(size)
    fleet.tracked = True
    memory = policy.new()
    jobs = [Job(rng.uniform(10, 4000), uncached=np.full(size, rng.uniform(10, 4000))) for _ in range(8)]

    def choosing(turn: int) -> None:
        note(fleet, policy.choose(fleet, jobs[turn & 7], rng, memory), jobs[turn & 7])

    def noting(turn: int) -> None:
        note(fleet, turn % size, jobs[turn & 7])
        if fleet.touched is not None:
            fleet.touched.clear()

    whole, alone = rounds_us(choosing), rounds_us(noting)
    return min(whole) - min(alone), statistics.median(whole) - statistics.median(alone)


def rounds_us(act: Callable[[int], None]) -> list[float]:
    """CPU time of one call, by round."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for turn in range(CHOICES):
            act(turn)
        rounds.append((time.process_time() - began) / CHOICES * 1e6)
    return rounds


def anew_us(name: str, size: int) -> float:
    """A choice for which every endpoint is computed."""
    policy, rng, fleet, job = POLICIES[name], Random(1), busy_fleet(size), Job(500.0)
    memory = policy.new()

    def choosing(_turn: int) -> None:
        policy.choose(fleet, job, rng, memory)

    return min(rounds_us(choosing))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pick", description=__doc__)
    parser.add_argument("--policy", default="sonde", choices=sorted(POLICIES), help="whose choice")
    policy = parser.parse_args().policy
    print(f"{policy}: CPU of one choice, microseconds")
    print(f"{'endpoints':>10} {'best':>8} {'median':>8} {'wanted':>8} {'anew':>8}")
    for size in SIZES:
        best, median = cost_us(policy, size)
        print(f"{size:>10} {best:>8.1f} {median:>8.1f} {LIMITS_US.get(size, ''):>8} {anew_us(policy, size):>8.1f}")


if __name__ == "__main__":
    main()
