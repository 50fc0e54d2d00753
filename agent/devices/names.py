"""What a device's name says: its kind, what it is a part of, and what it is shared as. Pure.

Forms that occur: GPU-<uuid> and MIG-<uuid> (NVIDIA), <id>::<n> (the n-th share of a time-sliced or MPS device),
nvidia0 and nvidia0/gi3, with /vgpu2 behind either (GKE), Ascend910-3, Ascend910-2c-100-1 (a vNPU: template, id, chip)
and Ascend310P-0-99 (a share of a chip), 0000:3b:00.0 (AMD, by PCI address).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

ASCEND_REAL = "huawei.com/AscendReal"  # what a pod really has; with Volcano it differs from what kubelet gave
SEPARATOR = "::"

_GKE = re.compile(r"(nvidia\d+)(?:/gi(\d+))?(?:/vgpu(\d+)|/vgpu)?")
_ASCEND = re.compile(r"(?:Ascend\w*|npu)-(?:\d+c[\w.]*-\d+-(?P<virtual>\d+)|(?P<chip>\d+)(?:-\d+)?)")
_VENDORS = {
    "nvidia.com/": "nvidia",
    "huawei.com/": "huawei",
    "amd.com/": "amd",
    "gpu.nvidia.com": "nvidia",
    "npu.huawei.com": "huawei",
    "gpu.amd.com": "amd",
}
_NOT_DEVICES = ("nvidia.com/gpucores", "nvidia.com/gpumem", "huawei.com/npu-core")  # amounts with made-up ids


class Kind(StrEnum):
    GPU = "gpu"
    MIG = "mig"  # a slice of a GPU
    NPU = "npu"
    OTHER = "other"


@dataclass(frozen=True, slots=True, order=True)
class Device:
    id: str  # without what it is shared as
    resource: str  # nvidia.com/gpu, or the driver of a resource claim
    kind: Kind
    share: str = ""  # "" if it is not shared
    parent: str = ""  # of a slice: the device it is cut from, as far as the name says


def vendor(resource: str) -> str | None:
    """None for what is no accelerator, such as hugepages or network devices."""
    if resource in _NOT_DEVICES:
        return None
    return next((name for prefix, name in _VENDORS.items() if resource.startswith(prefix)), None)


def device(resource: str, text: str) -> Device | None:
    """The device that a resource's id means; None where it is no accelerator."""
    maker = vendor(resource)
    if maker is None or not text:
        return None
    plain, _, share = text.partition(SEPARATOR)
    if maker == "nvidia":
        return _nvidia(resource, plain, share)
    if maker == "huawei":
        return _ascend(resource, plain, share)
    return Device(plain.lower(), resource, Kind.GPU, share)


def _nvidia(resource: str, plain: str, share: str) -> Device:
    if found := _GKE.fullmatch(plain):
        shared = share or found[3] or ("0" if "/vgpu" in plain else "")
        if found[2] is not None:
            return Device(f"{found[1]}/gi{found[2]}", resource, Kind.MIG, shared, found[1])
        return Device(found[1], resource, Kind.GPU, shared)
    is_mig = plain.startswith("MIG-") or resource.startswith("nvidia.com/mig-")
    return Device(plain, resource, Kind.MIG if is_mig else Kind.GPU, share)


def _ascend(resource: str, plain: str, share: str) -> Device:
    found = _ASCEND.fullmatch(plain)
    if found is None:
        return Device(plain, resource, Kind.NPU, share)
    if found["virtual"] is not None:
        return Device(plain, resource, Kind.NPU, share, f"chip-{found['virtual']}")
    return Device(plain, resource, Kind.NPU, share, f"chip-{found['chip']}")


def ascend_real(annotations: Mapping[str, str]) -> tuple[Device, ...] | None:
    """What the device plugin noted of the pod; None where it noted nothing of use."""
    text = annotations.get(ASCEND_REAL, "")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    names = [part if "-" in part else f"Ascend-{part}" for part in parts]
    if not names or not all(_ASCEND.fullmatch(name) for name in names):
        return None
    found = [device("huawei.com/Ascend", name) for name in names]
    return tuple(sorted({replace(one, resource=_resource(one.id)) for one in found if one}))


def _resource(text: str) -> str:
    return f"huawei.com/{text.partition('-')[0]}"


def chip(one: Device) -> int | None:
    """The number of an NPU's chip on its node, by which the npu-exporter calls it."""
    return int(one.parent.removeprefix("chip-")) if one.parent.startswith("chip-") else None
