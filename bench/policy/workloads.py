"""Requests for simulations: when they come and how long they are. Pure and seeded; the same for every policy.

Lengths are drawn from quantile tables computed from published traces (Azure LLM inference 2023 by
`lab.contests.workload`, Mooncake's conversation trace by the table here), by linear interpolation between quantiles.
Arrivals are superposed clients with Zipf weights, each a Gamma renewal process, as production traces show them
(ServeGen, BurstGPT).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from bench.policy.cache import BLOCK_TOKENS
from bench.policy.requests import Request
from lab.contests.workload import LENGTHS, Lengths, Quantiles

CLIENTS = 20
ZIPF = 1.1


def _points(*values: float) -> Quantiles:
    return Quantiles(tuple(zip((0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1), values, strict=True)))


# computed from the published trace (github.com/kvcache-ai/Mooncake, conversation trace): 12,031 requests
MOONCAKE = Lengths(
    _points(1, 964, 2306, 6909, 15367, 27367, 39550, 85400, 126195),
    _points(1, 24, 156, 350, 472, 597, 698, 1119, 2000),
)
TABLES = {**LENGTHS, "mooncake": MOONCAKE}


@dataclass(frozen=True, slots=True)
class Load:
    """What clients send. `kind` says how prompts share beginnings: not at all, in groups, or as conversations."""

    rate: float
    variation: float = 1.0  # coefficient of variation of the time between one client's arrivals; 1 is Poisson
    lengths: str = "azure-conv"
    longest: int = 16384
    kind: str = "alone"  # alone, groups, chat
    groups: int = 150
    group_tokens: int = 6000
    question_tokens: int = 1200
    answer_tokens: int = 1000
    bypass_rate: float = 0.0
    bypass_pods: int = 0  # the last so many pods get it
    adapters: int = 0
    classes: tuple[tuple[int, float], ...] = ()  # (priority, share)


def requests(load: Load, pods: int, duration_s: float, seed: int) -> list[Request]:
    """All requests in the order of time."""
    times = Random(f"{seed} arrivals")
    made = Random(f"{seed} requests")
    makers = {"alone": _alone, "groups": _groups, "chat": _chat}
    own = makers[load.kind](load, _arrivals(load.rate, load.variation, duration_s, times), made)
    bypass = Random(f"{seed} bypass")
    streams = [own]
    if load.bypass_rate:
        at = _arrivals(load.bypass_rate, 1.0, duration_s, bypass)
        streams.append(_bypass(load, at, pods, bypass))
    return sorted(itertools.chain(*streams), key=lambda request: request.at_s)


def _arrivals(rate: float, variation: float, duration_s: float, rng: Random) -> Iterator[float]:
    """Clients with Zipf weights; together `rate`. Each begins somewhere in its first interval."""
    weights = [1 / rank**ZIPF for rank in range(1, CLIENTS + 1)]
    scale = rate / sum(weights)
    heads = []
    shape = variation**-2
    for client, weight in enumerate(weights):
        mean_s = 1 / (weight * scale)
        heads.append((rng.random() * mean_s, client, mean_s))
    heapq.heapify(heads)
    while heads[0][0] < duration_s:
        at_s, client, mean_s = heads[0]
        yield at_s
        heapq.heapreplace(heads, (at_s + rng.gammavariate(shape, mean_s / shape), client, mean_s))


def _lengths(load: Load, rng: Random) -> tuple[int, int]:
    table = TABLES[load.lengths]
    prompt = max(1, round(table.prompt.at(rng.random())))
    return min(prompt, load.longest), max(1, round(table.output.at(rng.random())))


def _alone(load: Load, times: Iterator[float], rng: Random) -> Iterator[Request]:
    for at_s in times:
        prompt, output = _lengths(load, rng)
        request = Request(at_s, prompt, output)
        if load.adapters:
            request.adapter = _zipf(load.adapters, rng)
        if load.classes:
            request.priority = _drawn(load.classes, rng)
        yield request


def _bypass(load: Load, times: Iterator[float], pods: int, rng: Random) -> Iterator[Request]:
    for at_s in times:
        prompt, output = _lengths(load, rng)
        yield Request(at_s, prompt, output, bypass_pod=pods - 1 - rng.randrange(load.bypass_pods))


def _groups(load: Load, times: Iterator[float], rng: Random) -> Iterator[Request]:
    """Each request begins with one of `groups` long system prompts."""
    number = itertools.count(1)
    for at_s in times:
        group = rng.randrange(load.groups)
        shared = load.group_tokens // BLOCK_TOKENS
        question = max(1, round(rng.gauss(load.question_tokens, load.question_tokens / 4)))
        output = max(1, round(rng.gauss(load.answer_tokens, load.answer_tokens / 4)))
        own = next(number)
        prompt = load.group_tokens + question
        blocks = (*_names(group, 0, shared), *_names(1_000_000 + own, shared, prompt // BLOCK_TOKENS))
        yield Request(at_s, prompt, output, blocks, blocks, session=f"group-{group}")


def _names(owner: int, first: int, after: int) -> tuple[int, ...]:
    """Names of one chain's blocks; the owner stands for what came before."""
    return tuple((owner << 20) + depth for depth in range(first, after))


@dataclass(slots=True)
class _Talk:
    number: int
    turns: int
    context: int


def _chat(load: Load, times: Iterator[float], rng: Random) -> Iterator[Request]:
    """Conversations: a turn repeats all before it. A common system prompt of 1,000 tokens; on average five turns."""
    common = 1024 // BLOCK_TOKENS
    open_talks: list[_Talk] = []
    number = itertools.count(1)
    for at_s in times:
        talk = _next_talk(open_talks, number, rng)
        prompt = talk.context + max(1, round(rng.lognormvariate(4.6, 0.9)))  # of a turn: median 100
        output = max(1, round(TABLES[load.lengths].output.at(rng.random())))
        after = prompt + output
        blocks = (*_names(0, 0, common), *_names(talk.number, common, prompt // BLOCK_TOKENS))
        final = (*_names(0, 0, common), *_names(talk.number, common, after // BLOCK_TOKENS))
        talk.context, talk.turns = after, talk.turns - 1
        if talk.turns <= 0 or talk.context > load.longest:
            open_talks.remove(talk)
        yield Request(at_s, prompt, output, blocks, final, session=f"talk-{talk.number}")


OPEN_TALKS = 400  # at once: at 60 requests a second each has a turn every 7 s


def _next_talk(open_talks: list[_Talk], number: Iterator[int], rng: Random) -> _Talk:
    if len(open_talks) >= OPEN_TALKS or (open_talks and rng.random() < 0.75):
        return open_talks[rng.randrange(len(open_talks))]
    turns = 1 + int(rng.expovariate(1 / 4))
    talk = _Talk(next(number), turns, 1024 + rng.randrange(1000, 6000))
    open_talks.append(talk)
    return talk


def _zipf(count: int, rng: Random) -> int:
    weights = [1 / rank for rank in range(1, count + 1)]
    return rng.choices(range(count), weights)[0]


def _drawn(classes: tuple[tuple[int, float], ...], rng: Random) -> int:
    return rng.choices([priority for priority, _ in classes], [share for _, share in classes])[0]
