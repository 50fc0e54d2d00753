"""Every form of a device's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.devices.names import ASCEND_REAL, Device, Kind, ascend_real, chip, device, vendor

GPU, MIG, NPU = Kind.GPU, Kind.MIG, Kind.NPU


@pytest.mark.parametrize(
    ("resource", "text", "wanted"),
    [
        ("nvidia.com/gpu", "GPU-8dc1", Device("GPU-8dc1", "nvidia.com/gpu", GPU)),
        ("nvidia.com/gpu", "GPU-8dc1::3", Device("GPU-8dc1", "nvidia.com/gpu", GPU, "3")),
        ("nvidia.com/gpu.shared", "GPU-8dc1::0", Device("GPU-8dc1", "nvidia.com/gpu.shared", GPU, "0")),
        ("nvidia.com/gpu", "MIG-77aa", Device("MIG-77aa", "nvidia.com/gpu", MIG)),
        ("nvidia.com/mig-1g.18gb", "MIG-77aa", Device("MIG-77aa", "nvidia.com/mig-1g.18gb", MIG)),
        ("nvidia.com/mig-1g.18gb", "MIG-77aa::1", Device("MIG-77aa", "nvidia.com/mig-1g.18gb", MIG, "1")),
        ("nvidia.com/gpu", "nvidia0", Device("nvidia0", "nvidia.com/gpu", GPU)),
        ("nvidia.com/gpu", "nvidia1/gi3", Device("nvidia1/gi3", "nvidia.com/gpu", MIG, "", "nvidia1")),
        ("nvidia.com/gpu", "nvidia1/gi3/vgpu2", Device("nvidia1/gi3", "nvidia.com/gpu", MIG, "2", "nvidia1")),
        ("nvidia.com/gpu", "nvidia0/vgpu4", Device("nvidia0", "nvidia.com/gpu", GPU, "4")),
        ("nvidia.com/gpu", "nvidia0/vgpu", Device("nvidia0", "nvidia.com/gpu", GPU, "0")),
        ("gpu.nvidia.com", "gpu-0", Device("gpu-0", "gpu.nvidia.com", GPU)),
        ("huawei.com/Ascend910", "Ascend910-3", Device("Ascend910-3", "huawei.com/Ascend910", NPU, "", "chip-3")),
        (
            "huawei.com/Ascend910-2c",
            "Ascend910-2c-100-1",
            Device("Ascend910-2c-100-1", "huawei.com/Ascend910-2c", NPU, "", "chip-1"),
        ),
        (
            "huawei.com/Ascend310P",
            "Ascend310P-0-99",
            Device("Ascend310P-0-99", "huawei.com/Ascend310P", NPU, "", "chip-0"),
        ),
        ("huawei.com/npu", "npu-7", Device("npu-7", "huawei.com/npu", NPU, "", "chip-7")),
        ("huawei.com/npu", "odd", Device("odd", "huawei.com/npu", NPU)),
        ("amd.com/gpu", "0000:3B:00.0", Device("0000:3b:00.0", "amd.com/gpu", GPU)),
        ("nvidia.com/gpucores", "GPU-8dc1-0-12", None),
        ("hugepages-2Mi", "x", None),
        ("example.com/nic", "eth1", None),
        ("nvidia.com/gpu", "", None),
    ],
)
def test_a_name_is_understood(resource: str, text: str, wanted: Device | None) -> None:
    assert device(resource, text) == wanted


@given(some.text(), some.text())
def test_any_text_is_a_device_or_none(resource: str, text: str) -> None:
    for one in (resource, f"nvidia.com/{resource}", f"huawei.com/{resource}", f"amd.com/{resource}"):
        found = device(one, text)
        assert found is None or vendor(one)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Ascend910-0,Ascend910-1", ["Ascend910-0", "Ascend910-1"]),
        (" Ascend910-1 , Ascend910-0,", ["Ascend910-0", "Ascend910-1"]),
        ("Ascend310P-2c-100-1", ["Ascend310P-2c-100-1"]),
        ("0,3", ["Ascend-0", "Ascend-3"]),
        ("rubbish", None),
        ("Ascend910-0,,rubbish", None),
        ("", None),
    ],
)
def test_the_annotation_says_what_a_pod_really_has(text: str, wanted: list[str] | None) -> None:
    found = ascend_real({ASCEND_REAL: text})
    assert (None if found is None else [one.id for one in found]) == wanted


def test_without_the_annotation_nothing_is_known_by_it() -> None:
    assert ascend_real({}) is None


def test_a_vnpu_belongs_to_its_chip() -> None:
    virtual = device("huawei.com/Ascend910-2c", "Ascend910-2c-100-5")
    assert virtual is not None
    assert chip(virtual) == 5
