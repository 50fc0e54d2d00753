"""What a comparison came to: intervals, ratios to the first policy, a table in Markdown. Pure; chance is seeded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lab.contests.load import Result

Array = npt.NDArray[np.float64]

DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """One arm: one policy in one scenario and round. Failures count as the client's patience."""

    scenario: str
    policy: str
    round: int
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    failed: int
    good: dict[str, tuple[int, int]] = field(default_factory=dict)  # by objective: good ones, of so many

    @property
    def requests(self) -> int:
        return len(self.ttft_s)


def sample(
    scenario: str,
    policy: str,
    number: int,
    results: Sequence[Result],
    patience_s: float,
    budget_s: float | None = None,
) -> Sample:
    """budget_s: for a first token; with one it is counted how many of each objective kept to it."""
    ttft = [one.ttft_s if one.ttft_s is not None and one.error is None else patience_s for one in results]
    tpot = [
        (one.end_s - one.first_data_s) / (one.request.output_tokens - 1)
        for one in results
        if one.error is None
        and one.first_data_s is not None
        and one.end_s is not None
        and one.request.output_tokens > 1
    ]
    failed = sum(one.error is not None for one in results)
    good = {} if budget_s is None else _good([one.request.objective for one in results], ttft, budget_s)
    return Sample(scenario, policy, number, tuple(ttft), tuple(tpot), failed, good)


def _good(objectives: Sequence[str], ttft_s: Sequence[float], budget_s: float) -> dict[str, tuple[int, int]]:
    found: dict[str, list[bool]] = defaultdict(list)
    for objective, time_s in zip(objectives, ttft_s, strict=True):
        found[objective].append(time_s <= budget_s)
    return {name: (sum(kept), len(kept)) for name, kept in sorted(found.items())}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def p99(arms: Sequence[Sample], field: str, seed: int = 1) -> Estimate:
    """Of all requests of these arms; the interval by drawing rounds, then requests, anew."""
    parts = [np.array(getattr(arm, field)) for arm in arms if getattr(arm, field)]
    if not parts:
        return Estimate(float("nan"), float("nan"), float("nan"))
    drawn = _draws(parts, seed)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(np.quantile(np.concatenate(parts), 0.99)), float(low), float(high))


def ratio(peer: Sequence[Sample], own: Sequence[Sample], field: str) -> Estimate:
    """p99 of the peer over that of our own."""
    both = [[np.array(getattr(arm, field)) for arm in arms if getattr(arm, field)] for arms in (peer, own)]
    if not all(both):
        return Estimate(float("nan"), float("nan"), float("nan"))
    drawn = _draws(both[0], 1) / _draws(both[1], 1)  # the same rounds are drawn for both
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = np.quantile(np.concatenate(both[0]), 0.99) / np.quantile(np.concatenate(both[1]), 0.99)
    return Estimate(float(value), float(low), float(high))


def _draws(parts: Sequence[Array], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    rounds = rng.integers(0, len(parts), (DRAWS, len(parts)))
    return np.array(
        [np.quantile(np.concatenate([rng.choice(parts[at], len(parts[at])) for at in row]), 0.99) for row in rounds]
    )


def table(samples: Sequence[Sample], scenarios: Mapping[str, str]) -> list[str]:
    """A row for each policy in each scenario; ratios are to the first policy."""
    lines = [
        "| scenario | policy | requests | failed | TTFT p50 | TTFT p99 | TPOT p99 | TTFT p99 ratio | TPOT p99 ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for scenario in scenarios:
        chosen = [one for one in samples if one.scenario == scenario]
        policies = list(dict.fromkeys(one.policy for one in samples))
        for policy in policies:
            arms = [one for one in chosen if one.policy == policy]
            if arms:
                own = [one for one in chosen if one.policy == policies[0]]
                lines.append(_row(scenario, policy, arms, own if policy != policies[0] else []))
    return lines


def classes(samples: Sequence[Sample]) -> list[str]:
    """What share of each objective's requests kept to the budget; nothing where no scenario has one."""
    told = [one for one in samples if one.good]
    if not told:
        return []
    names = list(dict.fromkeys(name for one in told for name in one.good))
    lines = [
        "| scenario | policy | " + " | ".join(f"good {name}" for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for scenario, policy in dict.fromkeys((one.scenario, one.policy) for one in told):
        arms = [one for one in told if (one.scenario, one.policy) == (scenario, policy)]
        cells = [_share([one.good.get(name, (0, 0)) for one in arms]) for name in names]
        lines.append("| " + " | ".join([scenario, policy, *cells]) + " |")
    return lines


def _share(counts: Sequence[tuple[int, int]]) -> str:
    """With the least and the most of the rounds."""
    shares = [good / all_ * 100 for good, all_ in counts if all_]
    whole = sum(all_ for _, all_ in counts)
    if not whole:
        return "-"
    return f"{sum(good for good, _ in counts) / whole * 100:.0f} % ({min(shares):.0f} to {max(shares):.0f}) of {whole}"


def _row(scenario: str, policy: str, arms: Sequence[Sample], own: Sequence[Sample]) -> str:
    p50 = np.median(np.concatenate([np.array(one.ttft_s) for one in arms]))
    cells = [
        scenario,
        policy,
        str(sum(one.requests for one in arms)),
        str(sum(one.failed for one in arms)),
        f"{p50 * 1e3:.0f} ms",
        _time(p99(arms, "ttft_s")),
        _time(p99(arms, "tpot_s")),
        *(_times(ratio(arms, own, field)) if own else "" for field in ("ttft_s", "tpot_s")),
    ]
    return "| " + " | ".join(cells) + " |"


def _time(estimate: Estimate) -> str:
    if estimate.value != estimate.value:
        return "-"
    return f"{estimate.value * 1e3:.0f} ms ({estimate.low * 1e3:.0f} to {estimate.high * 1e3:.0f})"


def _times(estimate: Estimate) -> str:
    return (
        "-" if estimate.value != estimate.value else f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
    )
