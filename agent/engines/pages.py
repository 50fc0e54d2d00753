"""Keeps the engines' own numbers in the view fresh by reading their metrics pages.

A page is read each interval while the kernel sees its pod work, and a thirtieth as often while it does not: gauges of
an engine that nobody asked anything cannot have moved. A page that cannot be read leaves the last numbers, ageing. They
are as old as the request for them: an engine that takes long to answer wrote them some time in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.engines.families import read_page
from agent.engines.places import Page, in_order
from agent.engines.scrape import ScrapeError, Scraper
from agent.signals import value
from agent.ticks import tick
from agent.view import Place, Seen, View

log = logging.getLogger(__name__)

IDLE_FACTOR = 30
FAILED_FACTOR = 10  # at most, of a page that cannot be read
TIMEOUT_S = 1.0
_TICKS = 2  # looks for due pages in an interval


@dataclass(slots=True)
class _Visit:
    """The last reading of one endpoint's page."""

    begun_ns: int
    activity: int
    running: bool = True
    failures: int = 0  # in a row
    good: Page | None = None  # which of the possible pages was the engine's


class EnginePages:
    def __init__(
        self, view: View, interval_s: float, news: Callable[[], None], clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._view = view
        self._interval_s = interval_s
        self._news = news
        self._clock_ns = clock_ns
        self._scraper = Scraper()
        self._visits: dict[Place, _Visit] = {}
        self._addresses: set[tuple[str, Place]] = set()
        self.read = 0
        self.failed = 0

    async def run(self) -> None:
        """Reads pages until cancelled."""
        try:
            async with asyncio.TaskGroup() as readings:
                while True:
                    for place, seen in self._due():
                        readings.create_task(self._visit(place, seen), name=f"page of {place.pod}")
                    await tick(self._interval_s / _TICKS)
        finally:
            self._scraper.close()

    def _due(self) -> list[tuple[Place, Seen]]:
        here = self._view.endpoints()
        addresses = {(seen.ip, place) for place, seen in here.items() if seen.ip is not None}
        if addresses != self._addresses:
            self._visits = {place: visit for place, visit in self._visits.items() if place in here}
            self._scraper.keep_only({ip for ip, _ in addresses})
            self._addresses = addresses
        now_ns = self._clock_ns()
        return [
            (place, seen)
            for place, seen in here.items()
            if seen.ip is not None and is_due(self._visits.get(place), seen, self._interval_s, now_ns)
        ]

    async def _visit(self, place: Place, seen: Seen) -> None:
        visit = self._visits.setdefault(place, _Visit(0, 0))
        visit.begun_ns, visit.activity, visit.running = self._clock_ns(), seen.activity, True
        assert seen.ip is not None
        problems: list[str] = []
        try:
            for page in in_order(seen.hint, visit.good):
                asked_ns = self._clock_ns()
                try:
                    text = await self._scraper.fetch(seen.ip, page.port, page.path, TIMEOUT_S, page.tls)
                except ScrapeError as error:
                    problems.append(str(error))
                    continue
                metrics = read_page(text, seen.hint.engine)
                if metrics.engine is not None:
                    self._note_success(place, visit, page)
                    if self._view.take_page(place, metrics, asked_ns):
                        self._news()
                    return
                problems.append(f"{page.path} of port {page.port} has no engine's numbers")
        finally:
            visit.running = False
        self._note_failure(place, visit, problems[0])

    def _note_success(self, place: Place, visit: _Visit, page: Page) -> None:
        self.read += 1
        if visit.failures:
            log.info("engine page readable again pod=%s/%s port=%d", place.namespace, place.pod, page.port)
        visit.failures, visit.good = 0, page

    def _note_failure(self, place: Place, visit: _Visit, problem: str) -> None:
        self.failed += 1
        visit.failures += 1
        if visit.failures == 1:
            name = f"{place.namespace}/{place.pod}"
            log.warning("engine page not readable pod=%s: %s; kernel signals alone count", name, problem)


def is_due(visit: _Visit | None, seen: Seen, interval_s: float, now_ns: int) -> bool:
    """Whether an endpoint's page is to be read now, by what its last reading was."""
    if visit is None:
        return True
    if visit.running:
        return False
    early_s = interval_s / _TICKS / 2  # a look that comes a little early must not put the reading off to the next one
    return now_ns - visit.begun_ns >= (_factor(visit, seen) * interval_s - early_s) * 1e9


def _factor(visit: _Visit, seen: Seen) -> int:
    if visit.failures:
        return min(visit.failures, FAILED_FACTOR)
    unseen = seen.row is None
    busy = unseen or seen.activity != visit.activity or (seen.row is not None and value(seen.row, "in_flight") > 0)
    return 1 if busy else IDLE_FACTOR
