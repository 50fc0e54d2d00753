"""Learns how fast each pod is from its own gaps between tokens, and how much is sent to it. Pure: time is the fleet's.

A pod's pace is its decode step over the step of the rule's own idea of an engine with as many sequences. The lower
quartile of the gaps is taken, not the mean: prompts stretch the mean, so that a busy pod would seem slow, be avoided,
and seem slow the more others are sent what it was spared. The median pace of the pool is the measure of all: speed is
the ratio to it, and small differences are none. Errors of the rule's idea of an engine cancel in that ratio.
"""

from __future__ import annotations

import math

import numpy as np

from controller.policies.fleet import FIELDS, Array, Fleet, queue_of
from controller.policies.parts import COUNT_LIMIT_S, ENGINE, FROZEN_S, LONGEST_S, MOST_REQUESTS, Engine

_SENDS, _SENT_RATE = FIELDS.index("sends"), FIELDS.index("sent_rate")
PACE_S = 0.7  # a pace follows its pod with this time constant
FULL_WEIGHT = 4.0  # so many decoding requests, for a gap to count in full
ALIKE = (0.87, 1.15)  # a ratio between these is noise
DRIFT_S = 10.0  # small differences move the speed with this time constant
SPEED_LEAST, SPEED_MOST = 0.125, 8.0
SENT_S = 3.0
WARM_ANSWERS = 40.0  # fewer tell little of a pod that still fills its caches and compiles
MANY = 20.0  # requests that never stand still
ENDS = 10.0  # requests that should have ended meanwhile; that none does is no chance
STEP_MOST_S = 0.2  # for which an engine may be busy with one step, so that nothing begins or ends
LEAST_LIFE_S, MOST_LIFE_S = 0.2, 600.0  # of a request, to know how many should end
LEAP = 48.0  # requests that hardly come or go between two looks
DOUBT_S = 2.0  # for which a count is not believed that shows such a leap
STEP_S = 1.0  # as old as the gaps are in the mean
FORGET_S = 5.0  # in which a pace that nothing confirms is forgotten
QUEUE_S = 5.0  # for which a queue's turns are remembered
SEEN_MOST_S = 0.25  # what is seen now is not taken to have been so for longer, however long nobody looked


def learn(fleet: Fleet, engine: Engine = ENGINE) -> None:
    """Moves paces, speeds and sent rates to `fleet.now_s`; for whoever keeps a fleet, some times a second."""
    passed_s = fleet.now_s - fleet.learned_at_s
    if passed_s <= 0.0:
        return
    seen_s = min(passed_s, SEEN_MOST_S)
    fleet.learned_at_s = fleet.now_s
    fleet.sent_rate *= math.exp(-passed_s / SENT_S)
    _warm_up(fleet)
    _follow_counts(fleet, seen_s)
    _follow_queues(fleet, passed_s, seen_s)
    measured, weight = _measure(fleet, engine, seen_s)
    _follow_pace(fleet, measured, weight, passed_s, seen_s)
    if (measured > 0.0).any():
        _compare(fleet, seen_s)


def _follow_pace(fleet: Fleet, measured: Array, weight: Array, passed_s: float, seen_s: float) -> None:
    """Paces go towards what is measured; without a measurement back to the median.

    A pod taken for slow is sent little, so that nothing might ever tell that it is not: its first gaps are those of a
    cold pod full of prompts.
    """
    pace = np.where(fleet.pace > 0.0, fleet.pace, fleet.pool_pace)
    known = measured > 0.0
    aim = np.where(known, measured, float(np.median(pace)))
    follow, forget = 1.0 - math.exp(-seen_s / PACE_S), 1.0 - math.exp(-passed_s / FORGET_S)
    fleet.pace[:] = pace + np.where(known, weight * follow, forget) * (aim - pace)


def _warm_up(fleet: Fleet) -> None:
    """A pod that has answered some requests is cold no more: its speed is learned now."""
    cold = ~np.isnan(fleet.ready_at_s)
    fleet.answered_cold[~cold] = np.nan
    first = cold & np.isnan(fleet.answered_cold)
    fleet.answered_cold[first] = fleet.answered[first]
    with np.errstate(invalid="ignore"):
        fleet.ready_at_s[cold & (fleet.answered - fleet.answered_cold >= WARM_ANSWERS)] = np.nan


def _follow_counts(fleet: Fleet, passed_s: float) -> None:
    """Whether the counts move with what is sent.

    Of few requests, one may come and go between two looks, and the counter of answers tells that. Of many one begins or
    ends all the time, whoever sends them.
    """
    moved = (fleet.in_flight != fleet.in_flight_before) | (fleet.waiting != fleet.waiting_before)
    many = fleet.in_flight >= MANY
    moved |= (fleet.answered != fleet.answered_before) & ~many
    overdue = np.minimum(_overdue(fleet) / ENDS, 1.0 / STEP_MOST_S)
    fleet.unmoved_s += passed_s * FROZEN_S * np.maximum(fleet.sends > 0.0, overdue)
    fleet.unmoved_s[moved] = 0.0
    _doubt_leaps(fleet)
    fleet.sends[moved] = 0.0
    fleet.in_flight_before[:] = fleet.in_flight
    fleet.waiting_before[:] = fleet.waiting


def _overdue(fleet: Fleet) -> Array:
    """How many requests of each endpoint should end in a second, if its count is right."""
    gap_s = np.where((fleet.gap_s > 0.0) & (fleet.gap_s <= LONGEST_S), fleet.gap_s, ENGINE.step_s)
    life_s = np.clip(fleet.mean_output_tokens * gap_s, LEAST_LIFE_S, MOST_LIFE_S)
    counted = (fleet.in_flight > 0.0) & (fleet.in_flight <= MOST_REQUESTS)
    ends: Array = np.where(counted, fleet.in_flight, 0.0) / life_s
    return ends


def _doubt_leaps(fleet: Fleet) -> None:
    """A count that grows by more than begins, or falls at once, is more likely an error than so many requests."""
    with np.errstate(invalid="ignore"):
        change = fleet.in_flight - fleet.in_flight_before
        begun = fleet.answered - fleet.answered_before + fleet.waiting - fleet.waiting_before
        leap = np.maximum(change - np.fmax(fleet.sends, begun), -change)
        leaps = leap > LEAP + 0.25 * np.fmin(fleet.in_flight, fleet.in_flight_before)
    fleet.doubted_until_s[leaps] = fleet.now_s + DOUBT_S
    doubted = fleet.now_s < fleet.doubted_until_s
    fleet.unmoved_s[doubted] = np.maximum(fleet.unmoved_s[doubted], FROZEN_S)


def _follow_queues(fleet: Fleet, passed_s: float, seen_s: float) -> None:
    """For how long somebody waited, by what is seen now, and who had his turn."""
    kept = math.exp(-passed_s / QUEUE_S)
    fleet.queue_busy_s *= kept
    fleet.queue_turns *= kept
    fresh = fleet.kernel_age_s <= COUNT_LIMIT_S
    with np.errstate(invalid="ignore"):
        queue = queue_of(fleet.waiting, fleet.in_flight, fleet.whole_share, np.maximum)
    waits = fresh & (queue >= 1.0) & (queue <= MOST_REQUESTS)
    fleet.queue_busy_s[waits] += seen_s
    with np.errstate(invalid="ignore"):
        turns = fleet.answered - fleet.answered_before
    turns = np.where(fresh & (turns > 0.0) & (turns <= MOST_REQUESTS), turns, 0.0)
    fleet.queue_turns += turns
    np.copyto(fleet.answered_before, fleet.answered, where=fresh)


def sent(fleet: Fleet, at: int, uncached_tokens: float) -> None:
    """A request of our own went to an endpoint."""
    fleet.cells[_SENDS, at] += 1.0
    others_sent(fleet, at, uncached_tokens)


def others_sent(fleet: Fleet, at: int, uncached_tokens: float) -> None:
    """So many prompt tokens went there, by whomever."""
    if 0.0 < uncached_tokens < 1e9:
        fleet.cells[_SENT_RATE, at] += uncached_tokens / SENT_S


def _measure(fleet: Fleet, engine: Engine, passed_s: float) -> tuple[Array, Array]:
    """The pace of each endpoint as its gaps show it now, NaN where they show none, and how much that counts."""
    counted = (
        (fleet.unmoved_s < FROZEN_S)
        & (fleet.in_flight >= 1.0)
        & (fleet.in_flight <= MOST_REQUESTS)
        & (fleet.kernel_age_s <= COUNT_LIMIT_S)
    )
    in_flight = np.where(counted, fleet.in_flight, 0.0)
    decoding = in_flight - np.fmin(np.fmax(fleet.waiting, 0.0), in_flight)
    gap = np.where(fleet.low_gap_s > 0.0, fleet.low_gap_s, fleet.gap_s)
    usable = (decoding >= 1.0) & (gap > 0.0) & (gap <= LONGEST_S)
    step = _follow_step(fleet, in_flight, decoding, engine, passed_s)
    pace = np.full(len(fleet), np.nan)
    np.divide(gap, step, out=pace, where=usable)
    return pace, np.clip(np.where(usable, decoding, 0.0) / FULL_WEIGHT, 0.0, 1.0)


def _follow_step(fleet: Fleet, in_flight: Array, decoding: Array, engine: Engine, passed_s: float) -> Array:
    """What the rule's own engine would take for a decode step, of late: gaps are of the last seconds, counts of now."""
    context = np.maximum(in_flight - fleet.own_in_flight, 0.0) * fleet.mean_prompt_tokens
    with np.errstate(invalid="ignore"):
        context += fleet.own_tokens + in_flight * (0.5 * fleet.mean_output_tokens)
    step = engine.step_s + engine.sequence_s * decoding + engine.kv_token_s * context
    step = np.where((step > 0.0) & (step <= LONGEST_S), step, engine.step_s)
    before = np.where(fleet.step_s > 0.0, fleet.step_s, step)
    fleet.step_s = before + (step - before) * (1.0 - math.exp(-passed_s / STEP_S))
    return fleet.step_s


def _compare(fleet: Fleet, passed_s: float) -> None:
    """Speeds are paces over the pool's median; a speed moves at once if it is off by more than noise, else slowly."""
    paces = fleet.pace[fleet.pace > 0.0]
    fleet.pool_pace = float(np.median(paces))
    ratio = np.clip(fleet.pace / fleet.pool_pace, SPEED_LEAST, SPEED_MOST)
    ratio = np.where(np.isnan(ratio), 1.0, ratio)
    ratio[(ratio > ALIKE[0]) & (ratio < ALIKE[1])] = 1.0
    change = ratio / fleet.speed
    near = (change > ALIKE[0]) & (change < ALIKE[1])
    slowly = fleet.speed + (ratio - fleet.speed) * (1.0 - math.exp(-passed_s / DRIFT_S))
    fleet.speed[:] = np.where(near & (ratio != 1.0), slowly, ratio)
