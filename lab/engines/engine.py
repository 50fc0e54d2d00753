"""The simulated engine: runs the batching model in real time and tells each request of its tokens.

Owns the step loop and the counts of the metrics page; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lab.engines import batching, cache, page
from lab.engines.batching import Batch, Model, Sequence, Step, Token
from lab.engines.knobs import Knobs


class Listener(Protocol):
    """Whoever waits for a request's tokens."""

    def token(self, index: int, last: bool) -> None: ...


@dataclass(slots=True)
class _Waiter:
    listener: Listener
    arrived_s: float
    prompt_tokens: int
    previous_s: float | None = None


class Engine:
    """One engine with one batch. All methods are for the event loop's thread."""

    def __init__(
        self, name: str, model: Model, knobs: Knobs, happened: Callable[[str], None], prefix_tokens: int = 0
    ) -> None:
        """`name` is the model's name; `happened` is told of "hang" and "resume"; so many tokens of prompts are kept."""
        self.name = name
        self.model = model
        self.knobs = knobs
        self._happened = happened
        self._loop = asyncio.get_running_loop()
        self._batch = Batch()
        self._step: Step | None = None
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._hung_until_s: float | None = None
        self._waiters: dict[int, _Waiter] = {}
        self._ids = itertools.count(1)
        self._totals = page.Totals()
        self._cache = cache.PrefixCache(prefix_tokens) if prefix_tokens else None

    def submit(self, prompt_tokens: int, output_tokens: int, listener: Listener, words: tuple[str, ...] = ()) -> int:
        """Queues a request and returns its number; the listener hears of every token. `words` may be known already."""
        number = next(self._ids)
        self._waiters[number] = _Waiter(listener, self._loop.time(), prompt_tokens)
        known = self._cache.take(cache.blocks_of(words)) if self._cache is not None else 0
        computed = min(known, prompt_tokens - 1)  # the last token is always computed
        sequence = Sequence(number, prompt_tokens, output_tokens, computed=computed)
        self._batch = batching.enqueue(self._batch, sequence)
        if self._timer is None:
            self._timer = self._loop.call_soon(self._turn)
        return number

    def cancel(self, number: int) -> None:
        """Frees everything of a request whose client has gone; nothing if it is already done."""
        if self._waiters.pop(number, None) is not None:
            self._batch = batching.remove(self._batch, number)
            self._totals.aborted += 1

    def hang(self, hang_s: float) -> None:
        """Stops the step loop from now on for so long: what was under way goes on afterwards."""
        self._hung_until_s = self._loop.time() + hang_s
        self._happened("hang")
        if self._timer is None:  # so that the end of the hang is noticed even when nothing runs
            self._timer = self._loop.call_soon(self._turn)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def metrics_page(self) -> bytes:
        return page.render(
            self.name,
            running=len(self._batch.running),
            waiting=len(self._batch.waiting),
            kv_cache_usage=self._batch.kv_used / self.model.kv_tokens,
            kv_tokens=self.model.kv_tokens,
            totals=self._totals,
        )

    def _turn(self) -> None:
        """Ends the step under way and begins the next; while hung it only waits."""
        now_s = self._loop.time()
        if self._hung_until_s is not None:
            if now_s < self._hung_until_s:
                self._timer = self._loop.call_at(self._hung_until_s, self._turn)
                return
            self._hung_until_s = None
            self._happened("resume")
        if self._step is not None:
            self._batch, tokens = batching.finish(self._batch, self._step)
            for token in tokens:
                self._deliver(token, now_s)
        self._batch, self._step = batching.plan(self._batch, self.model, now_s, self.knobs.slow)
        self._timer = None if self._step is None else self._loop.call_at(self._step.ends_s, self._turn)

    def _deliver(self, token: Token, now_s: float) -> None:
        waiter = self._waiters[token.id]
        if waiter.previous_s is None:
            self._totals.prompt_tokens += waiter.prompt_tokens
            self._totals.ttft.observe(now_s - waiter.arrived_s)
        else:
            self._totals.gap.observe(now_s - waiter.previous_s)
        waiter.previous_s = now_s
        self._totals.generated_tokens += 1
        if token.last:
            del self._waiters[token.id]
            self._totals.finished += 1
            self._totals.duration.observe(now_s - waiter.arrived_s)
        waiter.listener.token(token.index, token.last)
