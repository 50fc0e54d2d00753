"""What a request is to each endpoint: its prompt less what is cached there, and whether its adapter is loaded.

Keeps the index of prefixes and the residency of adapters in step with the table's endpoints, and learns from first
uses how long loading an adapter takes; refuses to know rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from controller.endpoints.reservations import Reservation
from controller.endpoints.row import Row
from controller.model import Request
from controller.policies.adapters import Adapters
from controller.policies.fleet import Array, Fleet, Job
from controller.policies.paged import Page, paged
from controller.policies.prefix import PrefixIndex, block_hashes
from controller.policies.price import Forecast
from controller.requests import prompts

WHOLE_WEIGHT = 0.02
MEAN_WEIGHT = 0.01  # of one request in the means of the pool
LOADING_MOST = 64  # first uses of adapters that are followed at once


@dataclass(slots=True)
class Affinity:
    prefixes: PrefixIndex = field(default_factory=PrefixIndex)
    adapters: Adapters = field(default_factory=Adapters)
    by_page: bool = False  # the rule goes by pages alone
    _fleet: Fleet | None = None
    _loading: deque[tuple[Reservation, float]] = field(default_factory=lambda: deque(maxlen=LOADING_MOST))

    def job(self, request: Request, fleet: Fleet, rows: Sequence[Row]) -> Job:
        """The request as rules see it. `rows`: of the fleet, in its order."""
        if fleet is not self._fleet:
            self._place(fleet)
        resolved = request.resolved
        prompt = prompts.read(request.kind, request.body, request.fields)
        if prompt is None:
            job = Job(fleet.mean_prompt_tokens)
        else:
            job = Job(prompt.tokens, _expected(prompt.output_tokens, fleet))
            if prompt.streams is not None:
                fleet.whole_share += WHOLE_WEIGHT * ((not prompt.streams) - fleet.whole_share)
            if prompt.text:
                job.blocks = block_hashes(prompt.text, _salt(request))
                cached = self.prefixes.cached_tokens(job.blocks)
                if cached is not None:
                    job.uncached = np.maximum(prompt.tokens - cached, 0.0)
        if resolved:
            job.priority = resolved.priority
            if resolved.adapter:
                self._learn_loads()
                job.adapter_wait_s = self._wait_s(resolved.adapter, rows, fleet.now_s)
                if self.by_page:
                    job.paged = paged(resolved.adapter, [_page(row, fleet.now_s) for row in rows])
        return job

    def _wait_s(self, adapter: str, rows: Sequence[Row], now: float) -> Array:
        """What own requests tell, and the pages: an adapter that an engine works with is loaded, whoever sent it."""
        wait_s = self.adapters.wait_s(adapter, now)
        for at, row in enumerate(rows):
            engine = row.fresh_engine(now)
            if engine and adapter in engine.running_adapters:
                wait_s[at] = 0.0
        return wait_s

    def sent(self, request: Request, job: Job, row: Row, fleet: Fleet) -> float:
        """The request goes there; returns how many tokens it has to compute."""
        uncached = job.prompt_tokens if job.uncached is None else float(job.uncached[row.index])
        if job.blocks:
            self.prefixes.add(fleet.ids[row.index], job.blocks)
        fleet.mean_prompt_tokens += MEAN_WEIGHT * (job.prompt_tokens - fleet.mean_prompt_tokens)
        fleet.mean_uncached_tokens += MEAN_WEIGHT * (uncached - fleet.mean_uncached_tokens)
        return uncached

    def reserved(self, request: Request, job: Job, row: Row, fleet: Fleet, told: Forecast, made: Reservation) -> None:
        """Its adapter is in use there. Where it has to be loaded, its first byte tells how long that takes."""
        adapter = request.resolved.adapter if request.resolved else None
        if not adapter:
            return
        name = fleet.ids[row.index]
        if row.engine and row.engine.max_adapters:
            self.adapters.set_room(name, row.engine.max_adapters)
        whole_s = told.ttft_s + told.gap_s * fleet.mean_output_tokens
        loads = self.adapters.use(name, adapter, fleet.now_s, whole_s)
        if loads and told.measured and job.adapter_wait_s is not None:
            self._loading.append((made, fleet.now_s + told.ttft_s - float(job.adapter_wait_s[row.index])))

    def _learn_loads(self) -> None:
        for _ in range(len(self._loading)):
            made, due_s = self._loading.popleft()
            if made.queued:
                self._loading.append((made, due_s))
            elif made.begun_at_s is not None:
                self.adapters.learn(max(0.0, made.begun_at_s - due_s))

    def _place(self, fleet: Fleet) -> None:
        self.prefixes.place(fleet.ids, fleet.kv_tokens)
        self.adapters.place(fleet.ids)
        self._fleet = fleet


def _page(row: Row, now: float) -> Page:
    engine = row.fresh_engine(now)
    return (engine.running_adapters, engine.waiting_adapters, engine.max_adapters) if engine else ((), (), None)


def _expected(limit: float | None, fleet: Fleet) -> float | None:
    """What a client allows is a limit, not a wish: only where it is below the usual it tells something."""
    return limit if limit is not None and limit < fleet.mean_output_tokens else None


def _salt(request: Request) -> str:
    """Models and adapters do not share what they have computed."""
    if request.resolved and request.resolved.target:
        return request.resolved.target
    return request.model or ""
