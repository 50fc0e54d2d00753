"""Reads the metrics pages of engines that no agent reports on; pages become events.

How often: an endpoint that the kernel measures, but whose engine nobody reads, each SLOW_S. One that nothing measures
at --refresh-metrics-interval while requests come, since then its page is all there is, and each SLOW_S otherwise. All
together no more than SCRAPES_PER_S, so that a thousand pods cost no more than a fraction of a core. A page that fails
is asked for again after a growing pause, and its last value ages out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from agent.backoff import backoff_s
from agent.engines.families import EngineMetrics, read_page
from agent.engines.places import Hint, Page, Told, hint_of, in_order
from agent.engines.scrape import ScrapeError, Scraper
from controller.endpoints.row import Row
from controller.endpoints.table import Table
from controller.model import Address, Endpoint, EngineScraped, EngineSignal
from controller.sources.agents import Emit

log = logging.getLogger(__name__)

SLOW_S = 1.0
TIMEOUT_S = 1.0
SCRAPES_PER_S = 400.0
AGENT_GRACE_S = 0.3  # agents get so long to report an engine before we ask it ourselves
FAILURE_CAP_S = 5.0
LOOK_S = 0.25  # so soon a new endpoint, or one whose agent is gone, is noticed; each look walks all endpoints


@dataclass(slots=True)
class Scrapes:
    """For the metrics page."""

    good: int = 0
    failed: int = 0


@dataclass(slots=True)
class Due:
    """When an endpoint's page is next asked for, and how often it failed in a row."""

    at_s: float
    failures: int = 0
    good: Page | None = None  # which of the possible pages was the engine's


def is_ours(row: Row, own: EngineSignal | None, now: float) -> bool:
    """Whether nobody else reads this engine's page: what the row holds is fresh only if an agent or we read it."""
    engine = row.fresh_engine(now)
    return engine is None or (engine is own and now > row.page_until_s(row.paged_at_s))


def pause_s(measured: bool, busy: bool, refresh_s: float, endpoints: int) -> float:
    """The time between two pages of one of so many endpoints that we read."""
    wanted = refresh_s if busy and not measured else max(SLOW_S, refresh_s)
    return max(wanted, endpoints / SCRAPES_PER_S)


class Engines:
    """Scrapes for one table; run() is its one task."""

    def __init__(
        self,
        table: Table,
        emit: Emit,
        refresh_s: float,
        rng: Random,
        is_busy: Callable[[], bool],
        reads_all: bool = False,
        told: Told | None = None,
    ) -> None:
        """reads_all: for policies that go by pages alone, whoever else reads them; told: where pages are."""
        self._table = table
        self._emit = emit
        self._refresh_s = refresh_s
        self._rng = rng
        self._is_busy = is_busy
        self._reads_all = reads_all
        self._told = told
        self._dues: dict[Address, Due] = {}
        self._own: dict[Address, EngineSignal] = {}  # what we read last
        self._ours: list[Address] = []  # those that nobody else reads
        self.scrapes = Scrapes()

    async def run(self) -> None:
        scraper = Scraper()
        running: dict[Address, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    now = time.monotonic()
                    for endpoint in self._due(now):
                        task = running.get(endpoint.address)
                        if task is None or task.done():
                            running[endpoint.address] = group.create_task(self._scrape(scraper, endpoint))
                    scraper.keep_only({row.endpoint.ip for row in self._table.rows})
                    running = {address: task for address, task in running.items() if not task.done()}
                    await asyncio.sleep(self._rest_s(now))
        finally:
            scraper.close()

    def _due(self, now: float) -> list[Endpoint]:
        """The endpoints whose page is to be read now."""
        rows = {row.endpoint.address: row for row in self._table.rows}
        first_s = now if self._reads_all else now + AGENT_GRACE_S
        self._dues = {address: self._dues.get(address) or Due(first_s) for address in rows}
        self._own = {address: signal for address, signal in self._own.items() if address in rows}
        ours = [row for address, row in rows.items() if self._reads_all or is_ours(row, self._own.get(address), now)]
        self._ours = [row.endpoint.address for row in ours]
        due = []
        for row in ours:
            state = self._dues[row.endpoint.address]
            if now >= state.at_s:
                measured = not self._reads_all and row.fresh_kernel(now) is not None
                state.at_s = now + pause_s(measured, self._is_busy(), self._refresh_s, len(ours))
                due.append(row.endpoint)
        return due

    def _rest_s(self, now: float) -> float:
        """Until something can be due: often only while requests come to endpoints that nothing else measures."""
        dues = [self._dues[address].at_s for address in self._ours]
        return min(max(min(dues, default=now + SLOW_S) - now, min(self._refresh_s, LOOK_S)), LOOK_S)

    async def _scrape(self, scraper: Scraper, endpoint: Endpoint) -> None:
        address, hint = endpoint.address, hint_at(endpoint, self._told)
        due = self._dues.setdefault(address, Due(0.0))
        problems: list[str] = []
        for page in in_order(hint, due.good):
            asked_s = time.monotonic()
            try:
                text = await scraper.fetch(endpoint.ip, page.port, page.path, TIMEOUT_S, page.tls)
            except ScrapeError as error:
                problems.append(str(error))
                continue
            signal = signal_of(read_page(text, hint.engine), asked_s)
            if signal is not None:
                due.failures, due.good = 0, page
                self._take(address, signal)
                return
            problems.append(f"{page.path} of port {page.port} has no engine's numbers")
        self._failed(address, due, problems[0])

    def _take(self, address: Address, signal: EngineSignal) -> None:
        self.scrapes.good += 1
        self._own[address] = signal
        self._emit(EngineScraped(address, signal), time.monotonic())

    def _failed(self, address: Address, due: Due, problem: str) -> None:
        self.scrapes.failed += 1
        due.failures += 1
        if due.failures == 1:
            log.info("engine %s: %s", address, problem)
        due.at_s = time.monotonic() + backoff_s(due.failures, self._rng, first_s=SLOW_S, most_s=FAILURE_CAP_S)


def hint_at(endpoint: Endpoint, told: Told | None = None) -> Hint:
    hint = endpoint.hint or hint_of({}, {}, endpoint.port, (endpoint.port,))
    return told.before(hint, endpoint.port) if told else hint


def signal_of(page: EngineMetrics, asked_s: float) -> EngineSignal | None:
    """True since it was asked for: the engine wrote it some time later. None: the page says nothing."""
    if page.engine is None:
        return None
    return EngineSignal(
        true_at_s=asked_s,
        engine=page.engine,
        running=page.running,
        waiting=page.waiting,
        kv_cache_usage=page.kv_cache_usage,
        models=page.models,
        running_adapters=page.running_adapters,
        waiting_adapters=page.waiting_adapters,
        max_adapters=page.max_adapters,
        kv_blocks=page.kv_blocks,
        kv_block_tokens=page.kv_block_tokens,
    )
