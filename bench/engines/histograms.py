"""Histograms of two makers held against each other: the kernel's fine buckets and an engine's coarse ones. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.engines.samples import Family, Page, label
from agent.kernel import layout


@dataclass(frozen=True, slots=True)
class Times:
    """What can be said of some durations. None: nobody says."""

    count: int
    mean_s: float | None = None
    median_s: float | None = None
    p99_s: float | None = None


NOBODY_SAYS = Times(0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bucket, not cumulative. Bucket i holds values above uppers_s[i - 1] up to uppers_s[i]."""

    uppers_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean_s(self) -> float | None:
        return self.sum_s / self.count if self.count else None

    def quantile_s(self, share: float) -> float | None:
        """As Prometheus' histogram_quantile() has it: linear inside the bucket, the last finite bound beyond it."""
        if not self.count:
            return None
        rank, below, lower = share * self.count, 0, 0.0
        for upper, count in zip(self.uppers_s, self.counts, strict=True):
            if count and below + count >= rank:
                return lower if math.isinf(upper) else lower + (upper - lower) * (rank - below) / count
            below, lower = below + count, upper
        return lower

    def times(self) -> Times:
        return Times(self.count, self.mean_s, self.quantile_s(0.5), self.quantile_s(0.99))

    def since(self, before: Histogram) -> Histogram:
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.uppers_s, counts, self.sum_s - before.sum_s)


def of_kernel(buckets: Sequence[int], sum_ns: int) -> Histogram:
    uppers = tuple(layout.bucket_upper_us(index) / 1e6 for index in range(len(buckets)))
    return Histogram(uppers, tuple(int(count) for count in buckets), sum_ns / 1e9)


def of_page(page: Page, name: str, labels: str = "", unit_s: float = 1.0) -> Histogram | None:
    """A family of a page, summed over the series that have `labels` in them; None where the page has none of them."""
    wanted = labels.encode()
    buckets: dict[float, float] = {}
    for sample in page.samples(Family(f"{name}_bucket".encode(), wanted)):
        bound = float(label(sample, "le") or "nan")
        buckets[bound] = buckets.get(bound, 0.0) + (sample.value or 0.0)
    if not buckets:
        return None
    uppers = sorted(buckets)
    cumulative = [0.0, *(buckets[upper] for upper in uppers)]
    counts = tuple(int(now - then) for then, now in itertools.pairwise(cumulative))
    total = sum(sample.value or 0.0 for sample in page.samples(Family(f"{name}_sum".encode(), wanted)))
    return Histogram(tuple(upper * unit_s for upper in uppers), counts, total * unit_s)


def times_of(values_s: Iterable[float]) -> Times:
    """Of single values: the nearest rank."""
    ordered = sorted(values_s)
    if not ordered:
        return NOBODY_SAYS
    median_s, p99_s = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return Times(len(ordered), sum(ordered) / len(ordered), median_s, p99_s)


def misplaced(fine: Histogram, coarse: Histogram) -> int:
    """The most values that lie on another side of one of the coarse bounds, by what both say for sure."""
    worst = abs(fine.count - coarse.count)
    seen = 0
    for bound, count in zip(coarse.uppers_s, coarse.counts, strict=True):
        seen += count
        surely, perhaps, lower = 0, 0, 0.0
        for upper, inside in zip(fine.uppers_s, fine.counts, strict=True):
            surely += inside if upper <= bound else 0
            perhaps += inside if lower <= bound else 0
            lower = upper
        worst = max(worst, surely - seen, seen - perhaps)
    return worst
