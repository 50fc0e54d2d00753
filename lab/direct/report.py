"""What the arms came to, as a table in Markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.contests.load import Result
from lab.contests.summary import QUANTILES, quantile


@dataclass(frozen=True, slots=True)
class Came:
    """One arm of one round: what was sent after the warm-up."""

    arm: str
    results: tuple[Result, ...]
    told: Mapping[str, float]  # weight of each pod at the end, as the controller said; {}: it told nobody


def came(arm: str, results: Sequence[Result], warmup_s: float, told: Mapping[str, float]) -> Came:
    return Came(arm, tuple(one for one in results if one.request.at_s >= warmup_s), told)


def table(rounds: Sequence[Came], pods: Sequence[str], notes: Mapping[str, str]) -> list[str]:
    """One row an arm, its rounds together; ratios are over the first arm. `notes`: what is special about a pod."""
    heads = ["arm", "requests", "failed", *(f"TTFT p{share * 100:g}" for share in QUANTILES)]
    heads += [f"{pod} ({notes[pod]})" if pod in notes else pod for pod in pods]
    arms = list(dict.fromkeys(one.arm for one in rounds))
    first = _times_s(_results(rounds, arms[0]))
    lines = [heads, ["---"] * len(heads)]
    for arm in arms:
        results = _results(rounds, arm)
        failed = sum(one.error is not None for one in results)
        bases = [None] * len(first) if arm == arms[0] else first
        times = [_time(own, base) for own, base in zip(_times_s(results), bases, strict=True)]
        lines.append([arm, str(len(results)), str(failed), *times, *_shares(_counted(results), pods)])
        told = [one.told for one in rounds if one.arm == arm and one.told]
        if told:
            lines.append([f"{arm}: told at the end", *[""] * (len(QUANTILES) + 2), *_shares(told[-1], pods)])
    return [f"| {' | '.join(line)} |" for line in lines]


def errors(rounds: Sequence[Came]) -> list[str]:
    counted = Counter((one.arm, result.error) for one in rounds for result in one.results if result.error is not None)
    return [f"{arm}: {count} requests failed: {error}" for (arm, error), count in sorted(counted.items())]


def _results(rounds: Sequence[Came], arm: str) -> list[Result]:
    return [result for one in rounds if one.arm == arm for result in one.results]


def _times_s(results: Sequence[Result]) -> list[float | None]:
    ttfts = [one.ttft_s for one in results if one.ttft_s is not None]
    return [quantile(ttfts, share) for share in QUANTILES]


def _time(own_s: float | None, base_s: float | None) -> str:
    if own_s is None:
        return "-"
    ratio = f" ({own_s / base_s:.2f}x)" if base_s else ""
    return f"{own_s * 1e3:.0f} ms{ratio}"


def _counted(results: Sequence[Result]) -> Counter[str]:
    return Counter(one.pod for one in results if one.pod is not None)


def _shares(weights: Mapping[str, float], pods: Sequence[str]) -> list[str]:
    whole = sum(weights.get(pod, 0.0) for pod in pods)
    return [f"{weights.get(pod, 0.0) / whole:.1%}" if whole else "-" for pod in pods]
