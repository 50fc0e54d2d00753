"""The agent's Prometheus page, put together from a snapshot of its state; reads no map and counts nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.exporting import device_metrics, pod_metrics, process_metrics, self_metrics
from agent.exporting.exposition import Family
from agent.exporting.pod_metrics import PodMetrics
from agent.exporting.snapshot import Snapshot
from agent.steering import metrics as steering_metrics

FAMILIES: tuple[Family, ...] = (
    *pod_metrics.FAMILIES,
    *device_metrics.FAMILIES,
    *self_metrics.FAMILIES,
    *process_metrics.FAMILIES,
    *steering_metrics.FAMILIES,
)


class AgentPage:
    """Asks for a new snapshot at each scrape. page() may run in any thread, and in several at once."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._pods = PodMetrics()

    def page(self) -> Iterator[str]:
        """The page in pieces, one a family."""
        taken = self._snapshot()
        yield from self._pods.written(taken.pods, taken.now_ns)
        yield from device_metrics.device_metrics(taken.devices)
        yield from self_metrics.self_metrics(taken.agent)
        yield process_metrics.process_metrics()
        yield from steering_metrics.steering_metrics(taken.steering)
