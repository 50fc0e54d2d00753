"""The controller's Prometheus page, put together from a snapshot; counts nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from agent.exporting import process_metrics
from agent.exporting.exposition import Family
from agent.version import version
from controller.exporting import endpoint_metrics, request_metrics
from controller.exporting.snapshot import Snapshot

FAMILIES: tuple[Family, ...] = (*endpoint_metrics.FAMILIES, *request_metrics.FAMILIES, *process_metrics.FAMILIES)


class ControllerPage:
    """`take` gives a new snapshot at each scrape and may be called from any thread."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take
        self._commit = os.environ.get("SONDE_COMMIT", "unknown")
        self._build = f"sonde-{version()}"

    def page(self) -> Iterator[str]:
        """The page in pieces, one a family."""
        taken = self._take()
        yield from endpoint_metrics.endpoint_metrics(taken)
        yield from request_metrics.request_metrics(taken.requests, self._commit, self._build)
        yield process_metrics.process_metrics()
