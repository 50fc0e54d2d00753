"""What the project wants to reach, each as a comparison of numbers of the matrix. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.policy import rivals, runs
from bench.policy.measures import interval, ratio
from bench.policy.runs import Plain

Results = Mapping[str, Sequence[Plain]]


@dataclass(frozen=True, slots=True)
class Target:
    """`field` of the best of `peers` in a cell shall be at least `least` times that of our rule."""

    words: str
    cell: str
    field: str
    least: float
    peers: tuple[str, ...] = rivals.UNTOLD


@dataclass(frozen=True, slots=True)
class Outcome:
    words: str
    wanted: str
    found: str
    reached: bool


LLM_D = ("llm-d",)
OWN_COUNTS = tuple(
    name for name in rivals.UNTOLD if name.split(",")[0] in ("least-request", "peak-ewma", "dynamo", "p2c")
)
TARGETS = (
    Target("homogeneous, 30 %: TTFT p99 against the best peer", "B1/30", "ttft_p99_s", 0.95),
    Target("homogeneous, 60 %: TTFT p99 against the best peer", "B1/60", "ttft_p99_s", 0.95),
    Target("homogeneous, 80 %: TTFT p99 against the best peer", "B1/80", "ttft_p99_s", 1.0),
    Target("homogeneous, 95 %: TTFT p99 against the best peer", "B1/95", "ttft_p99_s", 1.0),
    Target("homogeneous, 80 %: TTFT p99 against llm-d's defaults", "B1/80", "ttft_p99_s", 2.0, LLM_D),
    Target("mixed fleet, 75/s: TTFT p99 against the best untold peer", "B3/75", "ttft_p99_s", 1.5),
    Target("straggler x2: TPOT p99 against the best peer", "B4/x2", "tpot_p99_s", 1.5),
    Target("bypass 22 %: TPOT p99 against the best peer", "B6/22", "tpot_p99_s", 1.3),
    Target("bypass 22 %: TPOT p99 against the best that scrapes nothing", "B6/22", "tpot_p99_s", 1.3, OWN_COUNTS),
    Target("+400 ms to one pod: TTFT p99 against the best peer", "B11/400ms", "ttft_p99_s", 2.0),
    Target("cold pod: TTFT p99 against the best peer", "B10/cold", "ttft_p99_s", 1.3),
    Target("mixed stress: TTFT p99 against the best untold peer", "B14", "ttft_p99_s", 1.7),
    Target("mixed stress: TPOT p99 against the best untold peer", "B14", "tpot_p99_s", 1.4),
)
MIXED_RATES = (55, 65, 75, 82, 88)
GOODPUT = 0.99


def outcomes(results: Results, rng: np.random.Generator) -> list[Outcome]:
    """All of them; each also says by how much."""
    compared = [_compared(target, results, rng) for target in TARGETS]
    return [
        *compared,
        _capacity(results),
        _detection(results),
        _pickers(results, rng),
        *_liars(results),
        *_overload(results),
    ]


def best(results: Results, cell: str, field: str, names: Sequence[str]) -> str:
    """The peer with the lowest mean of a field among those that took part."""
    there = [name for name in names if f"{cell}|{name}" in results]
    return min(there, key=lambda name: float(np.mean(runs.of(results[f"{cell}|{name}"], field))))


def against(results: Results, cell: str, field: str, peer: str, rng: np.random.Generator) -> tuple[float, float, float]:
    return ratio(runs.of(results[f"{cell}|{peer}"], field), runs.of(results[f"{cell}|sonde"], field), rng)


def _compared(target: Target, results: Results, rng: np.random.Generator) -> Outcome:
    peer = best(results, target.cell, target.field, target.peers)
    middle, low, high = against(results, target.cell, target.field, peer, rng)
    found = f"{middle:.2f} ({low:.2f} to {high:.2f}; {peer})"
    return Outcome(target.words, f">= {target.least:g}", found, middle >= target.least)


def capacity(results: Results, name: str) -> float:
    """The highest rate with 99 % goodput on the mixed fleet, between tested rates by interpolation."""
    goods = [float(np.mean(runs.of(results[f"B3/{rate}|{name}"], "good"))) for rate in MIXED_RATES]
    if goods[0] < GOODPUT:
        return float("nan")
    for at in range(1, len(goods)):
        if goods[at] < GOODPUT:
            share = (goods[at - 1] - GOODPUT) / (goods[at - 1] - goods[at])
            return MIXED_RATES[at - 1] + share * (MIXED_RATES[at] - MIXED_RATES[at - 1])
    return float(MIXED_RATES[-1])


def _capacity(results: Results) -> Outcome:
    there = [name for name in rivals.UNTOLD if all(f"B3/{rate}|{name}" in results for rate in MIXED_RATES)]
    found = {name: capacity(results, name) for name in there}
    known = {name: value for name, value in found.items() if value == value}
    peer = max(known, key=lambda name: known[name]) if known else "none"
    own, best_rate = capacity(results, "sonde"), known.get(peer, float(MIXED_RATES[0]))
    text = f"{own / best_rate:.2f} ({own:.0f}/s; {peer} {best_rate:.0f}/s)"
    return Outcome(
        "mixed fleet: capacity at 99 % goodput against the best untold peer", ">= 1.15", text, own >= 1.15 * best_rate
    )


def _detection(results: Results) -> Outcome:
    worst_s = max(runs.of(results["B5|sonde"], "detected_s"))
    return Outcome(
        "hung engine: nothing is sent to it after", "<= 0.5 s", f"{worst_s:.2f} s (worst seed)", worst_s <= 0.5
    )


def _pickers(results: Results, rng: np.random.Generator) -> Outcome:
    one, four = (runs.of(results[f"B7/{count}|sonde"], "ttft_p99_s") for count in (1, 4))
    middle, low, high = ratio(four, one, rng)
    return Outcome(
        "4 pickers: TTFT p99 against one picker", "<= 1.6", f"{middle:.2f} ({low:.2f} to {high:.2f})", middle <= 1.6
    )


def _liars(results: Results) -> list[Outcome]:
    """Worse than least-request by more than 5 %, in TTFT p99 or goodput."""
    found = []
    for key, words in (
        ("dead", "agents die"),
        ("idle", "agents claim idle pods"),
        ("busy", "agents claim 500 requests"),
        ("chance", "agents say anything up to 500"),
        ("stuck", "agents' counts stand still"),
    ):
        peer, own = (results[f"B15/{key}|{name}"] for name in ("least-request", "sonde"))
        worse = float(np.mean(runs.of(own, "ttft_p99_s")) / np.mean(runs.of(peer, "ttft_p99_s")))
        lost = float(np.mean(runs.of(peer, "good")) - np.mean(runs.of(own, "good")))
        text = f"TTFT p99 {worse:.2f} times, goodput {-lost * 100:+.1f} points"
        found.append(Outcome(f"{words}: against least-request", "<= 1.05 times", text, worse <= 1.05 and lost <= 0.05))
    return found


def _overload(results: Results) -> list[Outcome]:
    own = results.get("B13/1.6|sonde, classes")
    if own is None:
        return []
    critical = [dict(one["good_by_class"])["1"] for one in own]  # type: ignore[call-overload]
    middle, low, high = interval(critical, np.random.default_rng(1))
    text = f"{middle * 100:.1f} % ({low * 100:.1f} to {high * 100:.1f})"
    return [Outcome("overload 1.6 times: good requests of the critical class", ">= 99 %", text, middle >= 0.99)]
