"""What a pod took lately: mean time to first token, mean gap and lower quartile of the gaps. Pure; time is an argument.

All three are of about the last WINDOW_NS and renewed each RENEW_NS. While nothing new ends they stay as they were: what
an idle pod took last is the best guess of what it will take. Knows sums and histograms, not where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.kernel import layout

# Ten seconds tell the pick of a load that is over, half a second is noise: see bench/policy, which plays the pick with
# these two.
WINDOW_NS = 2_000_000_000
RENEW_NS = 250_000_000
GAPS_LEAST = 16  # a quartile of fewer says little

Counts = npt.NDArray[np.uint32]  # of a histogram, by bucket


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of one slot at one time."""

    at_ns: int
    ttft_ns: int = 0
    ttft_count: int = 0
    gap_ns: int = 0
    gap_count: int = 0


@dataclass(frozen=True, slots=True)
class Usual:
    """Recent means of one slot. `sums` are those of the window, oldest first, and one older: the window's own begin."""

    sums: tuple[Sums, ...]
    ttft_us: int | None = None
    gap_us: int | None = None

    @property
    def settled(self) -> bool:
        """Nothing ended in the whole window: until something does, there is nothing to follow."""
        return len(self.sums) == 1


def begin_usual(now: Sums) -> Usual:
    """The means of all that was ever counted: until something new ends nothing better is known."""
    return Usual((now,), _mean_us(now.ttft_ns, now.ttft_count, None), _mean_us(now.gap_ns, now.gap_count, None))


def follow_usual(usual: Usual, now: Sums) -> Usual:
    """The means with the sums of now; call each RENEW_NS. The slot must be the same pod's as before."""
    # of those that left the window the youngest stays
    first = max((at for at, sums in enumerate(usual.sums) if sums.at_ns <= now.at_ns - WINDOW_NS), default=0)
    oldest = usual.sums[first]
    ttft_count, gap_count = now.ttft_count - oldest.ttft_count, now.gap_count - oldest.gap_count
    if not ttft_count and not gap_count:
        return usual if usual.settled else Usual((now,), usual.ttft_us, usual.gap_us)
    ttft_us = _mean_us(now.ttft_ns - oldest.ttft_ns, ttft_count, usual.ttft_us)
    gap_us = _mean_us(now.gap_ns - oldest.gap_ns, gap_count, usual.gap_us)
    return Usual((*usual.sums[first:], now), ttft_us, gap_us)


def _mean_us(total_ns: int, count: int, before: int | None) -> int | None:
    return total_ns // count // 1000 if count > 0 and total_ns >= 0 else before


@dataclass(frozen=True, slots=True)
class Look:
    """A histogram as it was at one time: of all gaps until then."""

    at_ns: int
    counts: Counts

    def gaps_until(self, now: Counts) -> int:
        return int((now - self.counts).sum())  # the difference wraps as the counts do


@dataclass(frozen=True, slots=True)
class Gaps:
    """The lower quartile of recent gaps: decode steps as such, without the prompts that stretch the mean.

    `looks` are those of the window and one older, oldest first; older ones too while there were fewer than GAPS_LEAST.
    """

    looks: tuple[Look, ...] = ()
    quartile_us: int | None = None


NO_GAPS = Gaps()


def follow_gaps(gaps: Gaps, counts: Counts, now_ns: int) -> Gaps:
    """The quartile with the histogram of now; call each RENEW_NS while there are new gaps."""
    looks = gaps.looks
    if looks and np.array_equal(looks[-1].counts, counts):
        return gaps
    left = [at for at, look in enumerate(looks) if look.at_ns <= now_ns - WINDOW_NS]
    first = max((at for at in left if looks[at].gaps_until(counts) >= GAPS_LEAST), default=0)
    looks = (*looks[first:], Look(now_ns, counts))
    new = counts - looks[0].counts
    return Gaps(looks, _quartile_us(new) if int(new.sum()) >= GAPS_LEAST else gaps.quartile_us)


def _quartile_us(counts: Counts) -> int:
    """Values are taken to lie evenly in their bucket."""
    cumulated = np.cumsum(counts, dtype=np.int64)
    wanted = int(cumulated[-1]) / 4
    bucket = int(np.searchsorted(cumulated, wanted))
    upper_us = layout.bucket_upper_us(bucket)
    lower_us = layout.bucket_upper_us(bucket - 1) if bucket else 0
    before = int(cumulated[bucket - 1]) if bucket else 0
    return round(lower_us + (upper_us - lower_us) * (wanted - before) / int(counts[bucket]))
