"""NVIDIA's management library as states of devices; the only door to nvidia-ml-py, which is optional.

Everything a driver or a GPU lacks is unknown and never ends anything: a slice has no utilisation, old libraries lack
functions. Use from one thread. Xids come as events; between two looks the last fatal one of each GPU stays.
"""

from __future__ import annotations

import logging
from typing import Any

from agent.devices.health import State, share, xid_fault

log = logging.getLogger(__name__)

# bits of nvmlDeviceGetCurrentClocksEventReasons that hold a device down against its will
REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
_EVENTS_AT_ONCE = 64
_XID = 8  # the event type


class NoNvml(Exception):
    """There is no library, no driver or no GPU; the text says which."""


class Nvml:
    """Raises NoNvml."""

    def __init__(self) -> None:
        self._nvml = _library()
        self._faults: dict[str, str] = {}
        self._events: Any = None
        self._handles = self._devices()
        self._listen()

    def close(self) -> None:
        if self._events:
            self._ask("nvmlEventSetFree", self._events)
        self._ask("nvmlShutdown")

    def states(self) -> dict[str, State]:
        """By UUID: GPUs and their MIG slices. A slice shares its GPU's fault."""
        self._hear()
        found: dict[str, State] = {}
        for uuid, handle in self._handles.items():
            found[uuid] = self._state(uuid, handle)
            for slice_uuid, slice_handle in self._slices(handle):
                found[slice_uuid] = self._state(uuid, slice_handle)
        return found

    def indexes(self) -> dict[str, str]:
        """GKE's names by UUID: nvidia0, nvidia0/gi3."""
        names: dict[str, str] = {}
        for uuid, handle in self._handles.items():
            minor = self._ask("nvmlDeviceGetMinorNumber", handle)
            if minor is None:
                continue
            names[uuid] = f"nvidia{minor}"
            for slice_uuid, slice_handle in self._slices(handle):
                instance = self._ask("nvmlDeviceGetGpuInstanceId", slice_handle)
                names[slice_uuid] = f"nvidia{minor}/gi{instance}"
        return names

    def _devices(self) -> dict[str, Any]:
        count = self._ask("nvmlDeviceGetCount") or 0
        handles = [self._ask("nvmlDeviceGetHandleByIndex", at) for at in range(count)]
        named = {_text(self._ask("nvmlDeviceGetUUID", each)): each for each in handles if each}
        named.pop("", None)
        if not named:
            raise NoNvml("the driver lists no GPU")
        return named

    def _slices(self, handle: Any) -> list[tuple[str, Any]]:
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        if not mode or not mode[0]:
            return []
        count = self._ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0
        found = []
        for at in range(count):
            each = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, at)
            uuid = _text(self._ask("nvmlDeviceGetUUID", each)) if each else ""
            if uuid:
                found.append((uuid, each))
        return found

    def _state(self, gpu: str, handle: Any) -> State:
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        power_mw = self._ask("nvmlDeviceGetPowerUsage", handle)
        degrees = self._ask("nvmlDeviceGetTemperature", handle, 0)
        return State(
            utilization=share(float(rates.gpu), 100.0) if rates else None,
            memory_used_bytes=int(memory.used) if memory else None,
            memory_total_bytes=int(memory.total) if memory else None,
            power_w=power_mw / 1000 if power_mw is not None else None,
            temperature_c=float(degrees) if degrees is not None else None,
            throttled=self._throttled(handle),
            fault=self._faults.get(gpu),
        )

    def _throttled(self, handle: Any) -> tuple[str, ...]:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:  # its name until 2023
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return tuple(name for bit, name in REASONS.items() if bits and bits & bit)

    def _listen(self) -> None:
        self._events = self._ask("nvmlEventSetCreate")
        for handle in self._handles.values() if self._events else ():
            self._ask("nvmlDeviceRegisterEvents", handle, 8, self._events)  # 8: Xid

    def _hear(self) -> None:
        """Takes the events that wait, without waiting for one."""
        for _ in range(_EVENTS_AT_ONCE if self._events else 0):
            event = self._ask("nvmlEventSetWait_v2", self._events, 0)
            if event is None:
                return
            uuid = _text(self._ask("nvmlDeviceGetUUID", event.device))
            fault = xid_fault(int(event.eventData)) if event.eventType == 8 else None
            if fault and uuid:
                log.warning("GPU %s is lost: %s", uuid, fault)
                self._faults[uuid] = fault

    def _ask(self, function: str, *arguments: Any) -> Any:
        """None where NVML has no answer, or the library no such function."""
        call = getattr(self._nvml, function, None)
        if call is None:
            return None
        try:
            return call(*arguments)
        except self._nvml.NVMLError:
            return None


def _library() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise NoNvml("the package nvidia-ml-py is not installed") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoNvml(str(error)) from error
    return pynvml


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
