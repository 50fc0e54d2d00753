"""What one choice costs: `python -m bench.pick [--policy NAME]`. Processor time, without hashing prompts.

Each choice is noted in the fleet as the controller does it, so the next one cannot use what the last computed for that
endpoint; each CHANGED'th choice finds all endpoints changed. Prints the best and the median of several rounds for each
number of endpoints: the best is what the code costs, the median what it cost on this machine at this moment.
"""

from __future__ import annotations

import argparse
import statistics
import time
from random import Random

import numpy as np

from controller.policies.fleet import Fleet, Job
from controller.policies.registry import POLICIES

SIZES = (8, 32, 64, 256, 1000, 4000)
ROUNDS = 15
CHOICES = 400
CHANGED = 50
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


def reserve(fleet: Fleet, at: int, job: Job) -> None:
    fleet.reserved[at] += 1
    fleet.own_waiting[at] += 1
    fleet.own_in_flight[at] += 1
    fleet.queued_tokens[at] += job.prompt_tokens
    fleet.own_tokens[at] += job.prompt_tokens


def cost_us(name: str, size: int) -> tuple[float, float]:
    """The best and the median round."""
    policy, rng, fleet = POLICIES[name], Random(1), busy_fleet(size)
    fleet.tracked = True
    memory = policy.new()
    jobs = [Job(rng.uniform(10, 4000), uncached=np.full(size, rng.uniform(10, 4000))) for _ in range(8)]
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for turn in range(CHOICES):
            job = jobs[turn & 7]
            at = policy.choose(fleet, job, rng, memory)
            reserve(fleet, at, job)
            fleet.touch(at)
            if turn % CHANGED == 0:
                fleet.touched = None
        rounds.append((time.process_time() - began) / CHOICES * 1e6)
    return min(rounds), statistics.median(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pick", description=__doc__)
    parser.add_argument("--policy", default="sonde", choices=sorted(POLICIES), help="whose choice")
    policy = parser.parse_args().policy
    print(f"{policy}: CPU of one choice, microseconds")
    print(f"{'endpoints':>10} {'best':>8} {'median':>8} {'wanted':>8}")
    for size in SIZES:
        best, median = cost_us(policy, size)
        print(f"{size:>10} {best:>8.1f} {median:>8.1f} {LIMITS_US.get(size, ''):>8}")


if __name__ == "__main__":
    main()
