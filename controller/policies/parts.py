"""What an endpoint costs, but for a request's own tokens: the formula of the rule `sonde`, and its constants. Pure.

    base  = network, adapter, full memory, prompt tokens ahead, one step, BETA x mean output x decode step
    token = what each uncached prompt token adds: computing it, and holding it while decoding

Here of all endpoints at once, as arrays; `one.py` has the same for the numbers of one endpoint. What a step costs is a
rough idea of an engine (`Engine`); how each pod differs from it is learned (`speed.py`). Any number may be missing,
NaN, negative or absurd; then it is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controller.policies.fleet import STANDINGS, Array, Form, queue_of

COUNT_LIMIT_S = 0.25  # a kernel's count that is older misleads more than it tells
FROZEN_S = 1.0  # and so does one that stands still for so long while requests are sent
SIGNAL_LIMIT_S = 2.0  # and so does anything else that is older than this
MOST_REQUESTS = 1e5  # of one pod; more is no count
MOST_TOKENS = 1e8
LONGEST_S = 3600.0

BETA = 0.05  # of the own decode time; from 0.2 on it outweighs prefix hits
OTHERS = 0.05  # not more than BETA
BUSY_MOST = 0.85  # share of an engine's time that prompts are taken to fill at most
FAILURE_S = 2.0  # what a failed try costs the client
TURNS = 3.0  # fewer tell nothing of a queue
KV_FULL = 0.9  # from here on a request may have to wait until another ends
COLD_S = 30.0
COLD_SPEED = 2.0
STANDING_S = 1e12  # of one unit of `standing`: above any price
ABSURD_S = 1e9  # what no numbers lead to but senseless ones
CAP_S = 1e4  # of a cold endpoint that has its share
OUTPUT_WORK = 15.0  # output tokens cost so many times a prompt token where nothing is measured


@dataclass(frozen=True, slots=True)
class Engine:
    """Time of one step: `step_s + sequence_s * sequences + kv_token_s * context tokens + token_s * prompt tokens`.

    The defaults are an 8B model on an H100: kernel times that NVIDIA publishes for it, and 20 % for all around.
    """

    step_s: float = 0.0071
    sequence_s: float = 1.2e-5
    kv_token_s: float = 5.2e-8
    token_s: float = 2.35e-5


ENGINE = Engine()


class Pool(NamedTuple):
    """What concerns all endpoints."""

    mean_prompt_tokens: float
    mean_uncached_tokens: float
    mean_output_tokens: float
    pool_pace: float
    usual: float  # requests of an endpoint with known counts, in the mean
    foreign: float  # of them, those that others sent
    measured: bool  # at least half of the counts are a kernel's and fresh


class Count(NamedTuple):
    """Requests at an endpoint, from the best thing known of it."""

    total: Form
    waiting: Form  # of total: no first token yet
    fresh: Form  # by a kernel's count
    known: Form  # by that or by an engine's page


class Part(NamedTuple):
    """An endpoint's price but for the request's own tokens. The first two rows are all that a choice reads."""

    base_s: Form
    token_s: Form  # of each uncached prompt token, without the stall of others
    prompt_token_s: Form  # of that, what computing the token takes, which also stalls others
    ttft_s: Form  # of base_s: until the first token
    gap_s: Form  # between two tokens
    total: Form
    fresh: Form


def count(columns: Array, now_s: float, whole_share: float) -> Count:
    """Kernel's counts and own requests they cannot hold yet; else the engine's page; else own requests alone."""
    in_flight, waiting, kernel_at_s = columns[0], columns[1], columns[2]
    reserved, unpaged, own_waiting, _, own_in_flight, own_open = columns[8:14]
    running, queued, _, engine_at_s = columns[15:19]
    fresh = (now_s - kernel_at_s <= COUNT_LIMIT_S) & (in_flight >= 0.0) & (in_flight <= MOST_REQUESTS)
    fresh &= columns[29] < FROZEN_S
    requests = running + queued
    paged = (now_s - engine_at_s <= SIGNAL_LIMIT_S) & (running >= 0.0) & (queued >= 0.0) & (requests <= MOST_REQUESTS)
    total = np.where(fresh, in_flight + reserved, np.where(paged, requests + unpaged, own_in_flight))
    silent = np.where(waiting >= 0.0, np.minimum(waiting, in_flight), 0.0)
    silent = queue_of(silent, in_flight, whole_share, np.maximum) + reserved
    silent = np.where(fresh, silent, np.where(paged, queued + unpaged, own_waiting))
    total = np.maximum(total, own_open)
    total = np.where((total >= 0.0) & (total <= MOST_REQUESTS), total, 0.0)
    return Count(total, silent, fresh, fresh | paged)


def part(columns: Array, counted: Count, now_s: float, pool: Pool, engine: Engine) -> Part:
    _, _, kernel_at_s, gap_s, _, _, srtt_s = columns[:7]
    own_waiting, queued_tokens, own_in_flight, _, own_tokens = columns[10:15]
    _, _, kv_usage, engine_at_s, kv_tokens, _, speed, _, busy_s, turns, sent_rate = columns[15:26]
    failures, standing, ready_at_s = columns[31:]
    output = pool.mean_output_tokens
    total = counted.total + np.where(counted.known, 0.0, pool.foreign)
    others = np.maximum(total - own_in_flight, 0.0)
    heard = (now_s - kernel_at_s <= SIGNAL_LIMIT_S) & (columns[29] < FROZEN_S)
    cold = now_s - ready_at_s < COLD_S
    slow = np.where(heard & (speed > 0.0) & (speed < LONGEST_S), speed, 1.0)
    slow = np.where(cold, np.maximum(slow, COLD_SPEED), slow) * pool.pool_pace
    ahead = queued_tokens + np.maximum(counted.waiting - own_waiting, 0.0) * pool.mean_uncached_tokens
    context = own_tokens + others * pool.mean_prompt_tokens + total * (0.5 * output)
    filled = (now_s - engine_at_s <= SIGNAL_LIMIT_S) & (kv_usage >= 0.0) & (kv_usage <= 1.0)
    context = np.where(filled & (kv_tokens > 0.0), kv_usage * kv_tokens, context)
    prompt_token_s = slow * engine.token_s
    # one decode step with this request in it, stretched by the prompts that keep coming
    stretch = slow / np.maximum(1.0 - prompt_token_s * sent_rate, 1.0 - BUSY_MOST)
    gap = (engine.step_s + engine.sequence_s * (total + 1.0) + engine.kv_token_s * context) * stretch
    gap_token_s = engine.kv_token_s * stretch
    # half that, half the measured mean; a measured gap far below it is that of an idle time. Where nothing is in flight
    # the mean is of the past and nothing would renew it: after a hang it would keep a pod idle for good
    measured = heard & (counted.total >= 1.0) & (gap_s > 0.0) & (gap_s <= LONGEST_S)
    gap = np.where(measured, 0.5 * (gap + np.maximum(gap_s, 0.5 * gap)), gap)
    gap_token_s = np.where(measured, 0.5 * gap_token_s, gap_token_s)
    full = np.where(filled, np.maximum(kv_usage - KV_FULL, 0.0) * (1.0 / (1.0 - KV_FULL)), 0.0)
    # a place in the queue costs its prompt's time, or what places cost of late: engines have other limits than time
    turn_s = np.where(heard & (turns >= TURNS), busy_s / np.maximum(turns, TURNS), 0.0)
    ttft = np.maximum(prompt_token_s * ahead, counted.waiting * turn_s) + gap
    ttft += full * (counted.waiting + 1.0) * gap * output / np.maximum(total, 1.0)
    way_s = np.where(heard & (srtt_s > 0.0) & (srtt_s <= LONGEST_S), srtt_s, 0.0)
    way_s = way_s + np.where((failures > 0.0) & (failures <= 1.0), FAILURE_S * failures, 0.0)
    ttft = ttft + way_s
    if pool.measured:
        base, token_s = ttft + gap * (BETA * output), prompt_token_s + gap_token_s * (1.0 + BETA * output)
    else:
        work = own_tokens + others * pool.mean_prompt_tokens + (total + 1.0) * (OUTPUT_WORK * output)
        base, token_s = work * prompt_token_s + way_s, prompt_token_s
    share = (now_s - ready_at_s) * (1.0 / COLD_S) * pool.usual
    base += np.where(cold & (total > 0.0) & (total > share), CAP_S, 0.0)
    usable = (base >= 0.0) & (base < ABSURD_S) & (token_s >= 0.0) & (token_s < 1.0) & (gap < ABSURD_S)
    base, gap = np.where(usable, base, ABSURD_S), np.where(usable, gap, 0.0)
    base = base + np.where((standing > 0.0) & (standing < STANDINGS), STANDING_S * standing, 0.0)
    token_s, prompt_token_s = np.where(usable, token_s, 0.0), np.where(usable, prompt_token_s, 0.0)
    return Part(base, token_s, prompt_token_s, np.where(usable, ttft, 0.0), gap, total, counted.fresh)
