"""One engine under continuous batching, event by event.

The same scheduler and step cost as `lab.engines.batching` (running sequences first, then waiting ones in order, within
a token budget, a limit of sequences and the KV space; the youngest is put back and computed again when space ends),
but steps in which nothing but decoding happens are computed many at a time: their lengths form an arithmetic
progression.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from itertools import count

from bench.policy.adapters import Adapters
from bench.policy.cache import BLOCK_TOKENS, Cache
from bench.policy.hardware import Gpu
from bench.policy.requests import Request

INFINITY = math.inf


class Engine:
    """`next_s` is when something comes out; the owner then calls advance(). Any call may move it."""

    def __init__(self, gpu: Gpu, cache: Cache | None = None, adapters: Adapters | None = None) -> None:
        self.gpu = gpu
        self.cache = cache
        self.adapters = adapters
        self.prefill_slow = 1.0
        self.decode_slow = 1.0
        self.hung = False
        self.next_s = INFINITY
        self.waiting: deque[Request] = deque()
        self.running: dict[Request, None] = {}  # in the order of admission
        self.held_tokens = 0  # KV space that running sequences need, shared blocks once
        self.computed_tokens = 0  # tokens whose keys and values a step reads
        self.busy_s = 0.0
        self.preemptions = 0
        self.output_s = 0.0  # when tokens came out last
        self.gaps: list[tuple[float, int, float]] = []  # (end, number, mean length) of token gaps
        self._prefilling: dict[Request, None] = {}
        self._chunks: list[tuple[Request, int]] = []
        self._finishes: list[tuple[int, int, Request]] = []
        self._order = count()
        self._decoding = 0
        self._step = 0  # steps done so far
        self._start_s = 0.0
        self._steps = 0  # of the run under way
        self._first_step_s = 0.0
        self._growth_s = 0.0  # by which each step of a run is longer than the one before
        self._gone: list[Request] = []

    @property
    def kv_usage(self) -> float:
        return self.held_tokens / self.gpu.kv_tokens

    def answering(self, now_s: float) -> float:
        """When it last gave out a token, as of now; steps of a run under way count as all through it."""
        return now_s if self._decoding and not self._chunks and not self.hung else self.output_s

    def add(self, request: Request, now_s: float) -> None:
        was_empty = not self.waiting
        self.waiting.append(request)
        if self.next_s == INFINITY:
            self._plan(now_s)
        elif was_empty or self.adapters:
            self._cut(now_s)

    def remove(self, request: Request, now_s: float) -> None:
        """The client has gone. A running sequence leaves at the end of its step."""
        request.done = True
        if request.inside:
            self._gone.append(request)
            self._cut(now_s)
        elif request in self.waiting:
            self.waiting.remove(request)

    def set_speed(self, prefill_slow: float, decode_slow: float, now_s: float) -> None:
        self._cut(now_s)
        self.prefill_slow, self.decode_slow = prefill_slow, decode_slow

    def hang(self, now_s: float) -> None:
        """Nothing comes out any more; the step under way is lost."""
        self._cut(now_s)
        self.hung = True
        self._abandon(now_s)
        self.next_s = INFINITY

    def resume(self, now_s: float) -> None:
        self.hung = False
        self._plan(now_s)

    def advance(self) -> tuple[list[Request], list[Request]]:
        """Ends the run under way at `next_s`. Returns who got a first token, and who is finished."""
        now_s, steps, decoding = self.next_s, self._steps, self._decoding
        self.busy_s += now_s - self._start_s
        self._step += steps
        if decoding:
            self.gaps.append((now_s, steps * decoding, (now_s - self._start_s) / steps))
            self._grow(steps * decoding)
        first = self._end_chunks() if self._chunks else []
        if first or decoding:
            self.output_s = now_s
        finished = self._finish()
        if first:  # an answer of one token ends with its first
            for request in [one for one in first if one.generated >= one.output_tokens]:
                self._leave(request)
                finished.append(request)
        self._plan(now_s)
        return first, finished

    def _grow(self, tokens: int) -> None:
        self.held_tokens += tokens
        self.computed_tokens += tokens

    def _end_chunks(self) -> list[Request]:
        first = []
        for request, tokens in self._chunks:
            request.computed += tokens
            self.computed_tokens += tokens
            if request.computed < request.prompt_tokens + request.generated:
                continue
            del self._prefilling[request]
            self.held_tokens += 1
            request.generated += 1
            if request.generated == 1:
                first.append(request)
            if request.generated < request.output_tokens or request.generated > 1:
                self._decode_from_now(request)
        self._chunks = []
        return first

    def _decode_from_now(self, request: Request) -> None:
        request.finish_step = self._step + max(0, request.output_tokens - request.generated)
        self._decoding += 1
        heappush(self._finishes, (request.finish_step, next(self._order), request))

    def _finish(self) -> list[Request]:
        finished = []
        heap = self._finishes
        while heap and heap[0][0] <= self._step:
            finish_step, _, request = heappop(heap)
            if request.done or request.finish_step != finish_step:  # put back or gone meanwhile
                continue
            request.generated = request.output_tokens
            self._decoding -= 1
            self._leave(request)
            finished.append(request)
        return finished

    def _leave(self, request: Request) -> None:
        """Gives back the place and space of a finished sequence."""
        request.done = True
        total = request.prompt_tokens + request.output_tokens
        self.computed_tokens -= total - 1
        self._let_go(request, total, finished=True)

    def _let_go(self, request: Request, tokens: int, finished: bool) -> None:
        del self.running[request]
        request.inside = False
        if self.adapters and request.adapter is not None:
            self.adapters.leave(request.adapter)
        if self.cache and request.blocks:
            extra = request.final_blocks[len(request.blocks) :] if finished else ()
            private = tokens - len(request.blocks) * BLOCK_TOKENS
            self.held_tokens -= private + self.cache.release(request.blocks, extra)
        else:
            self.held_tokens -= tokens

    def _plan(self, now_s: float) -> None:
        """Chooses what the next run computes."""
        if self._gone:
            self._drop_gone()
        self._start_s = now_s
        if self.hung:
            self.next_s = INFINITY
            return
        if not self._make_room() and self.waiting:
            self._admit()
        if self.cache:
            self.cache.fit(self.gpu.kv_tokens - self.held_tokens)
        if self._prefilling:
            self._begin_mixed(now_s)
        elif self._decoding:
            self._begin_decoding(now_s)
        else:
            self.next_s = INFINITY

    def _space(self) -> float:
        """Tokens of KV space left; a sequence's last block is half empty on average."""
        return self.gpu.kv_tokens - self.held_tokens - len(self.running) * (self.gpu.block_tokens - 1) / 2

    def _make_room(self) -> bool:
        """Puts the youngest back until the tokens of the next step have space. Whether any was put back."""
        put_back = False
        while len(self.running) > 1 and self._space() < 0:
            self._put_back(next(reversed(self.running)))
            put_back = True
        return put_back

    def _put_back(self, request: Request) -> None:
        self.preemptions += 1
        self._take_out(request)
        request.computed = 0
        self.waiting.appendleft(request)

    def _take_out(self, request: Request) -> None:
        """An unfinished sequence loses its place and space."""
        if request in self._prefilling:
            del self._prefilling[request]
            self.computed_tokens -= request.computed
            tokens = request.prompt_tokens + request.generated
        else:
            left = request.finish_step - self._step
            request.generated = request.output_tokens - left
            request.finish_step = -1
            self._decoding -= 1
            tokens = request.prompt_tokens + request.generated
            self.computed_tokens -= tokens - 1
        self._let_go(request, tokens, finished=False)

    def _drop_gone(self) -> None:
        for request in self._gone:
            if request.inside:
                self._take_out(request)
            elif request in self.waiting:
                self.waiting.remove(request)
        self._gone = []

    def _admit(self) -> None:
        budget = self.gpu.max_step_tokens - self._decoding
        budget -= sum(one.prompt_tokens + one.generated - one.computed for one in self._prefilling)
        passed: list[Request] = []
        while self.waiting and budget > 0 and len(self.running) < self.gpu.max_sequences:
            request = self.waiting[0]
            if self.adapters and request.adapter is not None and not self.adapters.enter(request.adapter):
                passed.append(self.waiting.popleft())
                continue
            tokens, new = self._needs(request)
            if new > self._space():
                if self.adapters and request.adapter is not None:
                    self.adapters.leave(request.adapter)
                break
            self.waiting.popleft()
            self._enter(request, new)
            budget -= tokens
        self.waiting.extendleft(reversed(passed))

    def _needs(self, request: Request) -> tuple[int, int]:
        """Tokens to compute, and KV space that is not shared with a running sequence."""
        total = request.prompt_tokens + request.generated
        if not self.cache or not request.blocks:
            request.cached = 0
            return total, total
        matched = self.cache.matched(request.blocks) * BLOCK_TOKENS
        request.cached = min(matched, request.prompt_tokens - 1)  # the last token is always computed
        private = total - len(request.blocks) * BLOCK_TOKENS
        return total - request.cached, private + self.cache.new_tokens(request.blocks)

    def _enter(self, request: Request, new: int) -> None:
        if self.cache and request.blocks:
            self.cache.hold(request.blocks)
        request.inside = True
        request.computed = request.cached
        self.computed_tokens += request.cached
        self.held_tokens += new
        self.running[request] = None
        self._prefilling[request] = None

    def _begin_mixed(self, now_s: float) -> None:
        """One step with prompt tokens in it."""
        gpu, budget = self.gpu, self.gpu.max_step_tokens - self._decoding
        tokens, context = 0, 0.0
        self._chunks = []
        for request in self._prefilling:
            chunk = min(request.prompt_tokens + request.generated - request.computed, budget - tokens)
            if chunk <= 0:
                break
            self._chunks.append((request, chunk))
            tokens += chunk
            context += chunk * (request.computed + chunk / 2)
        base_s = self._base_s(self._decoding + len(self._chunks))
        work_s = self.prefill_slow * (gpu.prefill_token_s * tokens + gpu.attention_s * context)
        loads_s = self.adapters.take_load_s() if self.adapters else 0.0
        self._steps = 1
        self.next_s = now_s + base_s + work_s + loads_s

    def _begin_decoding(self, now_s: float) -> None:
        """Steps until the first sequence finishes or space ends."""
        heap = self._finishes
        while heap[0][2].done or heap[0][2].finish_step != heap[0][0]:
            heappop(heap)
        steps = max(1, heap[0][0] - self._step)
        steps = min(steps, max(0, int(self._space() // self._decoding)) + 1)
        self._steps = steps
        self._first_step_s = self._base_s(self._decoding)
        self._growth_s = self.decode_slow * self.gpu.kv_token_s * self._decoding
        self.next_s = now_s + self._length_s(steps)

    def _base_s(self, sequences: int) -> float:
        gpu = self.gpu
        return self.decode_slow * (gpu.step_s + gpu.sequence_s * sequences + gpu.kv_token_s * self.computed_tokens)

    def _length_s(self, steps: int) -> float:
        return steps * self._first_step_s + self._growth_s * steps * (steps - 1) / 2

    def _cut(self, now_s: float) -> None:
        """Ends a run of decode steps with the step that is under way."""
        if self.next_s == INFINITY or self._chunks or self._steps == 1:
            return
        steps = self._steps_by(now_s - self._start_s) + 1
        if steps < self._steps:
            self._steps = steps
            self.next_s = self._start_s + self._length_s(steps)

    def _steps_by(self, passed_s: float) -> int:
        """Whole steps of the run after so long."""
        first_s, growth_s = self._first_step_s, self._growth_s
        if growth_s <= 0:
            return int(passed_s / first_s)
        linear = first_s - growth_s / 2
        steps = int((math.sqrt(linear * linear + 2 * growth_s * passed_s) - linear) / growth_s)
        while steps > 0 and self._length_s(steps) > passed_s:
            steps -= 1
        while self._length_s(steps + 1) <= passed_s:
            steps += 1
        return steps

    def _abandon(self, now_s: float) -> None:
        """Keeps the whole steps that are done; the rest of the run never happened."""
        if self.next_s == INFINITY:
            return
        done = 0 if self._chunks else self._steps_by(now_s - self._start_s)
        if done:
            self.output_s = now_s
            self._step += done
            self._grow(done * self._decoding)
        self._chunks = []
