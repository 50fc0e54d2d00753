"""The pages of DCGM's exporter and of Huawei's npu-exporter as states of devices. Pure.

Devices are called as the exporters call them: by UUID, or "chip-N". Samples may carry a timestamp behind the value, and
values may be NaN or absurd; such a value is unknown, the rest of the page counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from agent.devices.health import State, number, share, whole_bytes, xid_fault

_MIB = 1 << 20
_LABEL = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')

States = dict[str, State]
Values = Mapping[str, float]  # by family


def read_dcgm(page: bytes) -> States:
    """By UUID. A slice's values are its own series and are called by the slice: UUID/giN."""
    return {name: _dcgm_state(values) for name, values in _collect(page, _DCGM, _dcgm_name).items()}


def slice_of_pod(page: bytes) -> dict[tuple[str, str], str]:
    """The slice of each pod, by namespace and name, that has exactly one.

    kubelet calls a slice MIG-<uuid>, the exporter calls it by its device and instance; where the exporter says whose it
    is, as it does on Kubernetes, one slice of one pod is the same under both names.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for _, labels, _ in _samples(page, frozenset(_DCGM)):
        name, pod = _dcgm_name(labels), labels.get(b"pod")
        if name and pod and labels.get(b"GPU_I_ID"):
            key = (labels.get(b"namespace", b"").decode(errors="replace"), pod.decode(errors="replace"))
            found.setdefault(key, set()).add(name)
    return {key: names.pop() for key, names in found.items() if len(names) == 1}


def read_npu(page: bytes) -> States:
    """By chip-N."""
    return {name: _npu_state(values) for name, values in _collect(page, _NPU, _npu_name).items()}


_DCGM = (
    b"DCGM_FI_DEV_GPU_UTIL",
    b"DCGM_FI_DEV_FB_USED",
    b"DCGM_FI_DEV_FB_FREE",
    b"DCGM_FI_DEV_POWER_USAGE",
    b"DCGM_FI_DEV_GPU_TEMP",
    b"DCGM_FI_DEV_XID_ERRORS",
)
_NPU = (
    b"npu_chip_info_health_status",
    b"npu_chip_info_error_code",
    b"npu_chip_info_utilization",
    b"npu_chip_info_overall_utilization",
    b"npu_chip_info_hbm_used_memory",
    b"npu_chip_info_hbm_total_memory",
    b"npu_chip_info_used_memory",
    b"npu_chip_info_total_memory",
    b"npu_chip_info_power",
    b"npu_chip_info_temperature",
)


def _dcgm_name(labels: Mapping[bytes, bytes]) -> str | None:
    uuid = labels.get(b"UUID")
    if not uuid:
        return None
    instance = labels.get(b"GPU_I_ID")
    return (
        f"{uuid.decode(errors='replace')}/gi{instance.decode(errors='replace')}"
        if instance
        else uuid.decode(errors="replace")
    )


def _npu_name(labels: Mapping[bytes, bytes]) -> str | None:
    number = labels.get(b"id", b"")
    return f"chip-{int(number)}" if number.isdigit() else None


def _dcgm_state(values: Values) -> State:
    nan = float("nan")
    used, free = values.get("DCGM_FI_DEV_FB_USED", nan), values.get("DCGM_FI_DEV_FB_FREE", nan)
    xid = number(values.get("DCGM_FI_DEV_XID_ERRORS", 0.0), 0, 100_000)
    return State(
        utilization=share(values.get("DCGM_FI_DEV_GPU_UTIL", nan), 100.0),
        memory_used_bytes=whole_bytes(used, _MIB),
        memory_total_bytes=whole_bytes(used + free, _MIB),
        power_w=number(values.get("DCGM_FI_DEV_POWER_USAGE", nan), 0, 100_000),
        temperature_c=number(values.get("DCGM_FI_DEV_GPU_TEMP", nan), -100, 1000),
        fault=xid_fault(int(xid)) if xid is not None else None,
    )


def _npu_state(values: Values) -> State:
    nan = float("nan")

    def first(*names: str) -> float:
        return next((values[name] for name in names if name in values), nan)

    unhealthy = values.get("npu_chip_info_health_status") == 0
    code = number(values.get("npu_chip_info_error_code", 0.0), 1, 2**63)
    return State(
        utilization=share(first("npu_chip_info_overall_utilization", "npu_chip_info_utilization"), 100.0),
        memory_used_bytes=whole_bytes(first("npu_chip_info_hbm_used_memory", "npu_chip_info_used_memory"), _MIB),
        memory_total_bytes=whole_bytes(first("npu_chip_info_hbm_total_memory", "npu_chip_info_total_memory"), _MIB),
        power_w=number(values.get("npu_chip_info_power", nan), 0, 100_000),
        temperature_c=number(values.get("npu_chip_info_temperature", nan), -100, 1000),
        fault=f"NPU unhealthy{f', error code {code:.0f}' if code else ''}" if unhealthy else None,
    )


def _collect(
    page: bytes, families: tuple[bytes, ...], name_of: Callable[[Mapping[bytes, bytes]], str | None]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family, labels, value in _samples(page, frozenset(families)):
        name = name_of(labels)
        if name is not None:
            found.setdefault(name, {})[family.decode()] = value
    return found


def _samples(page: bytes, families: frozenset[bytes]) -> Iterator[tuple[bytes, Mapping[bytes, bytes], float]]:
    """The wanted samples; lines that are none are passed over."""
    for line in page.split(b"\n"):
        name, brace, rest = line.partition(b"{")
        if not brace or name not in families:
            continue
        inside, _, tail = rest.rpartition(b"}")
        words = tail.split()
        if not 1 <= len(words) <= 2:  # a timestamp may follow
            continue
        try:
            value = float(words[0])
        except ValueError:
            continue
        yield name, dict(_LABEL.findall(inside)), value
