"""Values the controller's tests begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.cluster.objects import Cluster, Pod, Pool, cluster_of
from controller.endpoints.table import Table
from controller.model import ClusterChanged, EngineSignal, FrameReceived, KernelSignal, Report, Request, Resolved

GROUP = "inference.networking.k8s.io"
LABELS = {"app": "llm"}
PORT = 8000


def pod(name: str, ip: str | None = None, **changes: Any) -> Pod:
    """A ready pod of the pool; its address is from its name: a -> 10.0.0.1, b -> 10.0.0.2."""
    values: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "labels": LABELS,
        "annotations": {},
        "ip": ip or f"10.0.0.{ord(name[0]) - 96}",
        "node": "node-1",
        "ready": True,
        "terminating": False,
    }
    return Pod(**(values | changes))


def cluster(*pods: Pod, ports: tuple[int, ...] = (PORT,), failure_mode: str = "FailClose") -> Cluster:
    return cluster_of([Pool("default", "p", GROUP, "v1", LABELS, ports, failure_mode, ""), *pods])


def table(*pods: Pod, now: float = 0.0, **pool: Any) -> Table:
    made = Table(GROUP, "default", "p")
    made.apply(ClusterChanged(cluster(*pods, **pool)), now)
    return made


def kernel(in_flight: int = 0, at: float = 0.0, **changes: Any) -> KernelSignal:
    """A reading of an endpoint that streams whatever is in flight and answered a byte just now."""
    values: dict[str, Any] = {
        "true_at_s": at,
        "in_flight": in_flight,
        "waiting": 0,
        "started": in_flight,
        "progress": 0,
        "progress_at_s": at if in_flight else None,
        "usual_ttft_s": None,
        "usual_gap_s": None,
    }
    return KernelSignal(**(values | changes))


def engine(running: int | None, waiting: int | None, at: float = 0.0) -> EngineSignal:
    return EngineSignal(at, "vllm", running, waiting, 0.5)


def report(pod: str, kernel: KernelSignal | None = None, engine: EngineSignal | None = None, **changes: Any) -> Report:
    values: dict[str, Any] = {"namespace": "default", "pod": pod, "uid": f"uid-{pod}", "port": PORT}
    return Report(kernel=kernel, engine=engine, **(values | changes))


def frame(
    signals: Mapping[str, KernelSignal | None], full: bool = False, node: str = "node-1", at: float | None = None
) -> FrameReceived:
    """at: when what it does not mention was unchanged."""
    return FrameReceived(node, full, [report(pod, signal) for pod, signal in signals.items()], at)


def asked(model: str, target: str | None = None, priority: int = 0) -> Request:
    """A request for a model, looked up in the pool's objects."""
    return Request("/v1/completions", model, None, resolved=Resolved(model, target or model, None, priority, ""))
