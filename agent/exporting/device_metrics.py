"""The metrics of the pods' accelerators. Pure. A device that several pods share appears with each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.devices.health import State
from agent.devices.names import Device
from agent.exporting.exposition import Family, gauge, written
from agent.exporting.snapshot import PodDevices

_DEVICE = ("namespace", "pod", "device")

_INFO = gauge(
    "sonde_pod_device_info",
    "Always 1: the pod has this accelerator; share is its part of a shared one, kind is gpu, mig, npu or other.",
    *(*_DEVICE, "resource", "kind", "share"),
)
_HEALTHY = gauge(
    "sonde_pod_device_healthy",
    "0 after a fatal Xid or while the NPU is unhealthy, else 1. The pod's endpoints are then picked last.",
    *_DEVICE,
)
_UTILIZATION = gauge("sonde_pod_device_utilization_ratio", "How busy the accelerator is, 0 to 1.", *_DEVICE)
_USED = gauge("sonde_pod_device_memory_used_bytes", "Memory in use on the accelerator.", *_DEVICE)
_TOTAL = gauge("sonde_pod_device_memory_bytes", "Memory of the accelerator.", *_DEVICE)
_POWER = gauge("sonde_pod_device_power_watts", "Power the accelerator draws.", *_DEVICE)
_THROTTLED = gauge("sonde_pod_device_throttled", "1 while something holds the clocks down.", *_DEVICE)

FAMILIES: tuple[Family, ...] = (_INFO, _HEALTHY, _UTILIZATION, _USED, _TOTAL, _POWER, _THROTTLED)


def device_metrics(pods: Sequence[PodDevices]) -> Iterator[str]:
    rows = [(pod, one, state) for pod in pods for one, state in pod.devices]
    yield written(_INFO, [((*_labels(pod, one), one.resource, one.kind.value, one.share), 1) for pod, one, _ in rows])
    unique = {_labels(pod, one): state for pod, one, state in rows}
    for family, of in _VALUES:
        found = [(labels, value) for labels, state in unique.items() if (value := of(state)) is not None]
        yield written(family, found)


def _labels(pod: PodDevices, one: Device) -> tuple[str, str, str]:
    return (pod.namespace, pod.pod, one.id)


def _healthy(state: State) -> float | None:
    if state.fault:
        return 0
    return 1 if state != State() else None  # who knows nothing of a device does not know that it is well


def _throttled(state: State) -> float | None:
    return float(bool(state.throttled)) if state != State() else None


_VALUES = (
    (_HEALTHY, _healthy),
    (_UTILIZATION, lambda state: state.utilization),
    (_USED, lambda state: state.memory_used_bytes),
    (_TOTAL, lambda state: state.memory_total_bytes),
    (_POWER, lambda state: state.power_w),
    (_THROTTLED, _throttled),
)
