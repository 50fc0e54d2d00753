"""How true the kernel's numbers are: mixed requests to pods of the lab, against the engines' own logs of them.

    python -m bench.truth [--requests N] [--seed N]

The programs keep sums and counts for each pod, not a line for each request. So every scenario but the last sends one
request at a time to each of the pods and reads the pod's slot before and after: the difference is that request.
The last one overlaps requests on every pod and compares totals. Meanwhile each pod's in-flight count is sampled; see
bench.matching for what a sample is compared with. Before all that, bench.wire goes through what happens on the wire:
bodies, loss, kills, IPv6, HTTP/2. Needs root and a kernel that takes the programs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from agent.kernel import cgroups as tree
from agent.kernel.maps import PinnedMaps
from agent.placing.pods import CgroupId
from agent.placing.slots import Key
from bench import wire
from bench.caller import Ask
from bench.ground import REFUSALS, measured
from bench.lanes import Counts, Pod, one_after_the_other, overlapping, sample, until
from bench.matching import Pair, Sample, Sampled, judge, outcome_agrees, pair
from bench.wire_ground import GroundRefused, wire_ground
from lab import wire as lab_wire
from lab.contests.summary import quantile
from lab.engines import truth
from lab.machine import cgroups
from lab.machine.stack import Stack

PODS = 4
MEDIAN_LIMIT_MS = 0.3
OVERLAP_S = 0.06  # mean time between requests to one pod in the last scenario


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one kind of request is sent. `share` of all requests."""

    name: str
    share: float
    ask: Callable[[str, Random], Ask]
    knobs: dict[str, Any] = field(default_factory=dict)
    keep: bool = True
    overlapping: bool = False


def _streamed(id: str, rng: Random) -> Ask:
    return Ask(id, rng.randint(1, 400), rng.randint(2, 9), chat=rng.random() < 0.5)


def _long_prompt(id: str, rng: Random) -> Ask:
    return Ask(id, rng.randint(600, 1200), rng.randint(2, 5), chat=rng.random() < 0.5)


def _whole(id: str, rng: Random) -> Ask:
    return Ask(id, rng.randint(1, 400), rng.randint(1, 5), stream=False, chat=rng.random() < 0.5)


def _aborted(id: str, rng: Random) -> Ask:
    return Ask(id, rng.randint(1, 400), 40, abort_after=rng.choice((0, 1, 1, 2, 4)))


def _any(id: str, rng: Random) -> Ask:
    return rng.choice((_streamed, _streamed, _whole, _aborted))(id, rng)


SCENARIOS = (
    Scenario("stream, early header, kept connection", 0.2, _streamed, {"header_early": True}),
    Scenario("stream, late header, new connections", 0.14, _streamed, {"header_early": False}, keep=False),
    Scenario("stream, comments before data", 0.1, _long_prompt, {"header_early": True, "keep_alive_s": 0.01}),
    Scenario("not streamed, kept connection", 0.14, _whole),
    Scenario("client aborts", 0.1, _aborted, keep=False),
    Scenario("all of them, overlapping", 0.32, _any, overlapping=True),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one scenario came to."""

    name: str
    requests: int
    matched: int
    errors_ms: tuple[float, ...]  # |kernel - engine| of each request, or of each pod's mean where requests overlap
    chunks_wrong: int
    chunks: int
    sampled: Sampled
    left: int  # in flight at the end


async def on_pod(pod: Pod, scenario: Scenario, asks: Sequence[Ask], rng: Random) -> Row:
    await lab_wire.turn_knobs(pod.host, pod.control, **({"header_early": True, "keep_alive_s": None} | scenario.knobs))
    samples: list[Sample] = []
    sampler = asyncio.create_task(sample(pod, samples))
    try:
        if scenario.overlapping:
            calls, added = await overlapping(pod, asks, rng, OVERLAP_S)
        else:
            calls, added = await one_after_the_other(pod, asks, scenario.keep)
    finally:
        sampler.cancel()
    pairs = pair(calls, await pod.records({ask.id for ask in asks}))
    compare = _compare_totals if scenario.overlapping else _compare_each
    return compare(scenario.name, asks, pairs, added, judge(pairs, samples), pod.in_flight())


def _compare_each(
    name: str, asks: Sequence[Ask], pairs: Sequence[Pair], added: Sequence[Counts], sampled: Sampled, left: int
) -> Row:
    by_id = {ask.id: counts for ask, counts in zip(asks, added, strict=True)}
    matched, wrong, errors = 0, 0, []
    for one in pairs:
        counts = by_id[one.call.id]
        agrees = outcome_agrees(one, counts["completed"], counts["client_aborted"])
        matched += agrees and counts["started"] == 1 and counts["first_data"] == (one.ttft_ns is not None)
        wrong += counts["chunks"] not in one.chunks
        if one.ttft_ns is not None and counts["first_data"]:
            errors.append(abs(counts["ttft_ns_sum"] - one.ttft_ns) / 1e6)
    chunks = sum(counts["chunks"] for counts in added)
    return Row(name, len(asks), matched, tuple(errors), wrong, chunks, sampled, left)


def _compare_totals(
    name: str, asks: Sequence[Ask], pairs: Sequence[Pair], added: Sequence[Counts], sampled: Sampled, left: int
) -> Row:
    (counts,) = added
    ttfts = [one.ttft_ns for one in pairs if one.ttft_ns is not None]
    aborted = sum(one.record.outcome == truth.CLIENT_ABORTED for one in pairs)
    expected = {"started": len(pairs), "first_data": len(ttfts), "client_aborted": aborted}
    expected |= {"completed": len(pairs) - aborted, "server_aborted": 0, "lost": 0}
    off = max(abs(counts[what] - count) for what, count in expected.items())
    least, most = sum(one.chunks[0] for one in pairs), sum(one.chunks[-1] for one in pairs)
    wrong = max(least - counts["chunks"], counts["chunks"] - most, 0)
    mean_ms = abs(counts["ttft_ns_sum"] - sum(ttfts)) / max(1, len(ttfts)) / 1e6
    return Row(name, len(asks), max(0, len(pairs) - off), (mean_ms,), wrong, counts["chunks"], sampled, left)


async def run_scenario(scenario: Scenario, number: int, pods: Sequence[Pod], requests: int, seed: int) -> Row:
    rngs = [Random(f"{seed} {scenario.name} {pod.name}") for pod in pods]
    share = [len(range(at, round(requests * scenario.share), len(pods))) for at in range(len(pods))]
    async with asyncio.TaskGroup() as group:
        tasks = []
        for pod, rng, count in zip(pods, rngs, share, strict=True):
            asks = [scenario.ask(f"{number}-{pod.name}-{index}", rng) for index in range(count)]
            tasks.append(group.create_task(on_pod(pod, scenario, asks, rng)))
    return merged(scenario.name, [task.result() for task in tasks])


def merged(name: str, rows: Sequence[Row]) -> Row:
    sampled = [row.sampled for row in rows]
    return Row(
        name,
        sum(row.requests for row in rows),
        sum(row.matched for row in rows),
        tuple(error for row in rows for error in row.errors_ms),
        sum(row.chunks_wrong for row in rows),
        sum(row.chunks for row in rows),
        Sampled(sum(s.samples for s in sampled), sum(s.pinned for s in sampled), sum(s.wrong for s in sampled)),
        sum(row.left for row in rows),
    )


async def measure(lab: Stack, requests: int, seed: int) -> list[Row]:
    assert lab.ground.pins is not None
    maps = PinnedMaps(lab.ground.pins)
    try:
        slots = await _slots(lab, maps)
        pods = [Pod(index, lab, maps, slot) for index, slot in enumerate(slots)]
        rows = []
        for number, scenario in enumerate(SCENARIOS):
            print(f"... {scenario.name}", flush=True)
            rows.append(await run_scenario(scenario, number, pods, requests, seed))
        return rows
    finally:
        maps.close()


async def _slots(lab: Stack, maps: PinnedMaps) -> list[int]:
    """The slot of each pod, once the agent has given it one."""
    assert lab.ground.lab_slice is not None
    scopes = [cgroups.container_scope(lab.ground.lab_slice, pod.uid, pod.container_id) for pod in lab.ground.pods]
    keys = [Key(CgroupId(tree.identity(scope)), lab.ground.ports.engine) for scope in scopes]
    await until(lambda: maps.owners().keys() >= set(keys), "the agent to give every pod a slot")
    owners = maps.owners()
    return [owners[key].slot for key in keys]


def report(rows: Sequence[Row]) -> bool:
    """Prints the table and the verdict; whether every target is reached."""
    heads = ("scenario", "requests", "matched", "TTFT error median", "p99", "chunks", "wrong", "in-flight samples")
    cells = [[*heads, "pinned", "wrong", "at end"], *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        texts = (text.rjust(width) if column else text.ljust(width) for column, (text, width) in _columns(line, widths))
        print("  ".join(texts).rstrip())
    every = merged("", [row for row in rows if len(row.errors_ms) > PODS])
    median_ms = statistics.median(every.errors_ms) if every.errors_ms else float("inf")
    total = merged("", rows)
    goals = {
        f"median TTFT error {median_ms:.3f} ms, wanted at most {MEDIAN_LIMIT_MS} ms": median_ms <= MEDIAN_LIMIT_MS,
        f"{total.matched} of {total.requests} requests matched": total.matched == total.requests,
        f"{total.chunks_wrong} chunk counts wrong": not total.chunks_wrong,
        f"{total.sampled.wrong} of {total.sampled.samples} in-flight samples wrong": not total.sampled.wrong,
        f"{total.left} in flight at the end": not total.left,
    }
    print()
    for text, good in goals.items():
        print(f"{'reached' if good else 'MISSED '}  {text}")
    return all(goals.values())


def _columns(line: Sequence[str], widths: Sequence[int]) -> enumerate[tuple[str, int]]:
    return enumerate(zip(line, widths, strict=True))


def _cells(row: Row) -> list[str]:
    median_ms, p99_ms = quantile(row.errors_ms, 0.5), quantile(row.errors_ms, 0.99)
    of_means = len(row.errors_ms) <= PODS
    return [
        row.name,
        str(row.requests),
        str(row.matched),
        "-" if median_ms is None else f"{median_ms:.3f} ms{' (of means)' if of_means else ''}",
        "-" if p99_ms is None or of_means else f"{p99_ms:.3f} ms",
        str(row.chunks),
        str(row.chunks_wrong),
        str(row.sampled.samples),
        str(row.sampled.pinned),
        str(row.sampled.wrong),
        str(row.left),
    ]


def main() -> int:
    """0 if every target is reached, 1 if not or where this machine cannot measure."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--requests", type=int, default=500)
    options.add_argument("--seed", type=int, default=1)
    flags = options.parse_args()
    try:
        with wire_ground() as ground:
            on_the_wire = asyncio.run(wire.measure(ground, ""))
        rows = measured(PODS, flags.seed, lambda lab: measure(lab, flags.requests, flags.seed))
    except (*REFUSALS, GroundRefused) as error:
        print(f"bench.truth: {error}", file=sys.stderr)
        return 1
    print()
    good = report(rows)
    print()
    return 0 if wire.report(on_the_wire) and good else 1


if __name__ == "__main__":
    sys.exit(main())
