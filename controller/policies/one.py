"""What one endpoint costs, by its numbers: `parts.py` written out for floats, at a fraction of what arrays of one take.

Between two picks it is one endpoint that changes, the one that was picked. Each line is one of `parts.py`, in the same
order of operations, so that the results are the same to the last bit; tests hold one to the other. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from controller.policies.fleet import STANDINGS, queue_of
from controller.policies.parts import (
    ABSURD_S,
    BETA,
    BUSY_MOST,
    CAP_S,
    COLD_S,
    COLD_SPEED,
    COUNT_LIMIT_S,
    FAILURE_S,
    FROZEN_S,
    KV_FULL,
    LONGEST_S,
    MOST_REQUESTS,
    OUTPUT_WORK,
    SIGNAL_LIMIT_S,
    STANDING_S,
    TURNS,
    Engine,
    Part,
    Pool,
)


class CountOf(NamedTuple):
    total: float
    waiting: float
    fresh: bool
    known: bool


def count_of(column: Sequence[float], now_s: float, whole_share: float) -> CountOf:
    """Kernel's counts and own requests they cannot hold yet; else the engine's page; else own requests alone."""
    in_flight, waiting, kernel_at_s = column[:3]
    reserved, unpaged, own_waiting, _, own_in_flight, own_open = column[8:14]
    fresh = now_s - kernel_at_s <= COUNT_LIMIT_S and 0.0 <= in_flight <= MOST_REQUESTS and column[29] < FROZEN_S
    known = True
    if fresh:
        silent = (in_flight if in_flight <= waiting else waiting) if waiting >= 0.0 else 0.0
        total, silent = in_flight + reserved, queue_of(silent, in_flight, whole_share, max) + reserved
    else:
        running, queued, _, engine_at_s = column[15:19]
        known = now_s - engine_at_s <= SIGNAL_LIMIT_S and running >= 0.0 and queued >= 0.0
        known = known and running + queued <= MOST_REQUESTS
        total, silent = (running + queued + unpaged, queued + unpaged) if known else (own_in_flight, own_waiting)
    total = _higher(total, own_open)
    return CountOf(total if 0.0 <= total <= MOST_REQUESTS else 0.0, silent, fresh, known)


def part_of(column: Sequence[float], now_s: float, whole_share: float, pool: Pool, engine: Engine) -> Part:
    """column: of a Fleet's matrix."""
    counted, waiting, fresh, known = count_of(column, now_s, whole_share)
    _, _, kernel_at_s, gap_s, _, _, srtt_s = column[:7]
    own_waiting, queued_tokens, own_in_flight, _, own_tokens = column[10:15]
    _, _, kv_usage, engine_at_s, kv_tokens, _, speed, _, busy_s, turns, sent_rate = column[15:26]
    failures, standing, ready_at_s = column[31:]
    output = pool.mean_output_tokens
    total = counted + (0.0 if known else pool.foreign)
    others = _higher(total - own_in_flight, 0.0)
    heard = now_s - kernel_at_s <= SIGNAL_LIMIT_S and column[29] < FROZEN_S
    cold = now_s - ready_at_s < COLD_S
    slow = speed if heard and 0.0 < speed < LONGEST_S else 1.0
    slow = (max(slow, COLD_SPEED) if cold else slow) * pool.pool_pace
    ahead = queued_tokens + _higher(waiting - own_waiting, 0.0) * pool.mean_uncached_tokens
    context = own_tokens + others * pool.mean_prompt_tokens + total * (0.5 * output)
    filled = now_s - engine_at_s <= SIGNAL_LIMIT_S and 0.0 <= kv_usage <= 1.0
    if filled and kv_tokens > 0.0:
        context = kv_usage * kv_tokens
    prompt_token_s = slow * engine.token_s
    stretch = slow / _higher(1.0 - prompt_token_s * sent_rate, 1.0 - BUSY_MOST)
    gap = (engine.step_s + engine.sequence_s * (total + 1.0) + engine.kv_token_s * context) * stretch
    gap_token_s = engine.kv_token_s * stretch
    if heard and counted >= 1.0 and 0.0 < gap_s <= LONGEST_S:
        gap, gap_token_s = 0.5 * (gap + _higher(gap_s, 0.5 * gap)), 0.5 * gap_token_s
    turn_s = busy_s / turns if heard and turns >= TURNS else 0.0
    ttft = _higher(prompt_token_s * ahead, waiting * turn_s) + gap
    if filled and kv_usage > KV_FULL:
        full = (kv_usage - KV_FULL) * (1.0 / (1.0 - KV_FULL))
        ttft += full * (waiting + 1.0) * gap * output / _higher(total, 1.0)
    way_s = srtt_s if heard and 0.0 < srtt_s <= LONGEST_S else 0.0
    way_s += FAILURE_S * failures if 0.0 < failures <= 1.0 else 0.0
    ttft = ttft + way_s
    if pool.measured:
        base, token_s = ttft + gap * (BETA * output), prompt_token_s + gap_token_s * (1.0 + BETA * output)
    else:
        work = own_tokens + others * pool.mean_prompt_tokens + (total + 1.0) * (OUTPUT_WORK * output)
        base, token_s = work * prompt_token_s + way_s, prompt_token_s
    if cold and total > 0.0 and total > (now_s - ready_at_s) * (1.0 / COLD_S) * pool.usual:
        base += CAP_S
    usable = 0.0 <= base < ABSURD_S and 0.0 <= token_s < 1.0 and gap < ABSURD_S
    left_s = STANDING_S * standing if 0.0 < standing < STANDINGS else 0.0
    if not usable:
        return Part(ABSURD_S + left_s, 0.0, 0.0, 0.0, 0.0, total, fresh)
    return Part(base + left_s, token_s, prompt_token_s, ttft, gap, total, fresh)


def _higher(one: float, other: float) -> float:
    """NaN if either is, as numpy's."""
    return one if one >= other or one != one else other
