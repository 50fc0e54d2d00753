"""What this process costs its machine, under the names every Prometheus client library uses.

prometheus-client's own collector reads /proc; this module alone knows that library. The pages' own families, thousands
of samples of them, are written by `exposition.py`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from agent.exporting.exposition import Family, Kind

_REGISTRY = CollectorRegistry()
ProcessCollector(registry=_REGISTRY)


def _families() -> tuple[Family, ...]:
    return tuple(
        Family(
            f"{metric.name}_total" if metric.type == "counter" else metric.name, Kind(metric.type), metric.documentation
        )
        for metric in _REGISTRY.collect()
    )


FAMILIES: tuple[Family, ...] = _families()


def process_metrics() -> str:
    return generate_latest(_REGISTRY).decode()
