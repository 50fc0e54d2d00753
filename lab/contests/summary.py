"""What a contest came to: percentiles, failures and shares of each arm, and the table that compares them. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.contests.load import Result
from lab.engines.truth import Happening, Record

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Summary:
    """One arm. Times to the first token in seconds at QUANTILES, of streamed answers that had one; None without any."""

    arm: str
    requests: int
    failed: int
    ttft_s: tuple[float | None, ...]
    gap_p99_s: float | None
    by_pod: Mapping[str, int]
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Hang:
    """What a pod's own log says of its hang: when it wrote its last data, and when requests still came to it."""

    last_data_ns: int
    began_ns: int
    resumed_ns: int
    arrivals_ns: tuple[int, ...]  # after the last data and before the resume
    owed: int = 0  # requests it had begun and not answered when it stopped

    @property
    def last_arrival_ms(self) -> float | None:
        """From the last data to the last request that still came; None if none came."""
        return (max(self.arrivals_ns) - self.last_data_ns) / 1e6 if self.arrivals_ns else None


def quantile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that so large a share of all values does not exceed; None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def summarize(arm: str, results: Sequence[Result]) -> Summary:
    ttfts = [result.ttft_s for result in results if result.ttft_s is not None and result.request.stream]
    return Summary(
        arm=arm,
        requests=len(results),
        failed=sum(result.error is not None for result in results),
        ttft_s=tuple(quantile(ttfts, share) for share in QUANTILES),
        gap_p99_s=quantile((gap for result in results for gap in result.gaps_s), 0.99),
        by_pod=Counter(result.pod for result in results if result.pod is not None),
        errors=Counter(result.error for result in results if result.error is not None),
    )


def hang(records: Iterable[Record], happenings: Iterable[Happening], since_ns: int, until_ns: int) -> Hang | None:
    """The hang that began between two instants, from a pod's log; None if there was none or nothing was sent before."""
    times = {entry.what: entry.at_ns for entry in happenings if since_ns <= entry.at_ns <= until_ns}
    if "hang" not in times:
        return None
    began_ns, resumed_ns = times["hang"], times.get("resume", until_ns)
    records = [record for record in records if since_ns <= record.first_byte_ns <= until_ns]
    before = [at_ns for record in records for at_ns in record.data_ns if at_ns <= began_ns]
    if not before:
        return None
    last_data_ns = max(before)
    arrivals = (record.first_byte_ns for record in records)
    came = tuple(sorted(at_ns for at_ns in arrivals if last_data_ns < at_ns < resumed_ns))
    owed = sum(record.first_byte_ns <= began_ns < (record.end_ns or until_ns) for record in records)
    return Hang(last_data_ns, began_ns, resumed_ns, came, owed)


def table(summaries: Sequence[Summary], pods: Mapping[str, str]) -> list[str]:
    """Lines that compare the arms; ratios are to the first one. `pods` gives each pod's heading."""
    first = summaries[0]
    heads = ["", "requests", "failed", *(f"TTFT p{share * 100:g}" for share in QUANTILES), "gap p99", *pods.values()]
    rows = [heads, *(_row(summary, first, pods) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return [
        "  ".join(
            _cell(text, width, column) for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(summary: Summary, first: Summary, pods: Iterable[str]) -> list[str]:
    times = zip((*summary.ttft_s, summary.gap_p99_s), (*first.ttft_s, first.gap_p99_s), strict=True)
    return [
        summary.arm,
        str(summary.requests),
        str(summary.failed),
        *(_time(mine, base, summary is first) for mine, base in times),
        *(str(summary.by_pod.get(pod, 0)) for pod in pods),
    ]


def _cell(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)


def _time(value_s: float | None, base_s: float | None, is_base: bool) -> str:
    if value_s is None:
        return "-"
    text = f"{value_s * 1e3:.0f} ms"
    return text if is_base or not base_s else f"{text} ({value_s / base_s:.1f}x)"
