"""Continuous batching: which tokens an engine computes in its next step, and how long that step takes.

Pure: a batch is a value, time is an argument. The step model is that of vLLM's scheduler (running sequences first,
then waiting ones, within a token budget, a sequence limit and the KV space; when the space ends the youngest
sequence is put back and computed again), with a linear cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Model:
    """Cost and limits of one engine. A step takes `step_s + sequence_s * B + kv_token_s * KV + prefill_token_s * P`."""

    step_s: float = 0.018
    sequence_s: float = 0.0004
    kv_token_s: float = 4e-7
    prefill_token_s: float = 5e-5
    max_sequences: int = 8
    max_step_tokens: int = 512
    kv_tokens: int = 16384


@dataclass(frozen=True, slots=True)
class Sequence:
    """One request inside the engine. A token comes out when everything known so far is computed."""

    id: int
    prompt_tokens: int
    output_tokens: int
    generated: int = 0
    computed: int = 0  # tokens whose keys and values are in memory

    @property
    def due(self) -> int:
        """Tokens to compute before the next one comes out: the prompt at first, then one."""
        return self.prompt_tokens + self.generated - self.computed

    @property
    def done(self) -> bool:
        return self.generated >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """All requests of an engine: those that hold KV space, oldest first, and those that queue for it."""

    running: tuple[Sequence, ...] = ()
    waiting: tuple[Sequence, ...] = ()

    @property
    def kv_used(self) -> int:
        return sum(sequence.computed for sequence in self.running)


@dataclass(frozen=True, slots=True)
class Step:
    """A step under way: how many tokens each sequence computes in it, and when it ends."""

    tokens: Mapping[int, int]
    ends_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """A sequence got its next token; `last` if that was the last."""

    id: int
    index: int
    last: bool


def enqueue(batch: Batch, sequence: Sequence) -> Batch:
    return replace(batch, waiting=(*batch.waiting, sequence))


def remove(batch: Batch, sequence_id: int) -> Batch:
    """The batch without a sequence, wherever it was: its client has gone."""
    return Batch(
        tuple(sequence for sequence in batch.running if sequence.id != sequence_id),
        tuple(sequence for sequence in batch.waiting if sequence.id != sequence_id),
    )


def plan(batch: Batch, model: Model, now_s: float, slow: float = 1.0) -> tuple[Batch, Step | None]:
    """The batch after admissions and the step it begins now, or None with nothing to do. `slow` stretches the step."""
    running, put_back, tokens = _schedule_running(batch.running, model)
    waiting = (*put_back, *batch.waiting)
    if not put_back:
        running, waiting, tokens = _admit(running, waiting, tokens, model)
    batch = Batch(running, waiting)
    if not tokens:
        return batch, None
    return batch, Step(tokens, now_s + slow * _cost_s(batch, tokens, model))


def finish(batch: Batch, step: Step) -> tuple[Batch, tuple[Token, ...]]:
    """The batch after a step, without sequences that are done, and the tokens that came out, oldest sequence first.

    Sequences removed or added while the step ran are left as they are.
    """
    running = []
    out = []
    for sequence in batch.running:
        computed = step.tokens.get(sequence.id, 0)
        after = replace(sequence, computed=sequence.computed + computed)
        if computed and not after.due:
            after = replace(after, generated=after.generated + 1)
            out.append(Token(after.id, after.generated - 1, after.done))
        if not after.done:
            running.append(after)
    return Batch(tuple(running), batch.waiting), tuple(out)


def _schedule_running(
    running: tuple[Sequence, ...], model: Model
) -> tuple[tuple[Sequence, ...], tuple[Sequence, ...], dict[int, int]]:
    """What stays, what is put back for want of KV space (youngest first to go), and the tokens of each that stays."""
    stays = list(running)
    put_back: list[Sequence] = []
    tokens: dict[int, int] = {}
    index = 0
    while index < len(stays):
        sequence = stays[index]
        chunk = min(sequence.due, model.max_step_tokens - sum(tokens.values()))
        if sum(other.computed for other in stays) + sum(tokens.values()) + chunk > model.kv_tokens:
            victim = stays.pop()
            put_back.insert(0, replace(victim, computed=0))
            continue
        if chunk > 0:
            tokens[sequence.id] = chunk
        index += 1
    return tuple(stays), tuple(put_back), tokens


def _admit(
    running: tuple[Sequence, ...], waiting: tuple[Sequence, ...], tokens: dict[int, int], model: Model
) -> tuple[tuple[Sequence, ...], tuple[Sequence, ...], dict[int, int]]:
    """First come first served, while there is a place, token budget, and KV space for what is known of the request."""
    admitted = list(running)
    tokens = dict(tokens)
    held = sum(sequence.computed + max(sequence.due, 0) for sequence in running)
    while waiting and len(admitted) < model.max_sequences:
        first = waiting[0]
        budget = model.max_step_tokens - sum(tokens.values())
        if budget <= 0 or held + first.computed + first.due > model.kv_tokens:
            break
        admitted.append(first)
        tokens[first.id] = min(first.due, budget)
        held += first.computed + first.due
        waiting = waiting[1:]
    return tuple(admitted), waiting, tokens


def _cost_s(batch: Batch, tokens: Mapping[int, int], model: Model) -> float:
    prefill = sum(tokens[sequence.id] for sequence in batch.running if sequence.id in tokens and sequence.due > 1)
    return (
        model.step_s
        + model.sequence_s * len(tokens)
        + model.kv_token_s * batch.kv_used
        + model.prefill_token_s * prefill
    )
