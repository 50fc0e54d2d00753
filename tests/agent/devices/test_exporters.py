"""The exporters' pages, with timestamps, NaN, and what cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.devices.exporters import read_dcgm, read_npu
from agent.devices.health import State, joined, xid_fault
from tests.conftest import DATA

DCGM, NPU = (DATA / "devices" / "dcgm.txt").read_bytes(), (DATA / "devices" / "npu.txt").read_bytes()
MIB = 1 << 20


def test_a_page_of_dcgm() -> None:
    states = read_dcgm(DCGM)
    assert states["GPU-aaaa"] == State(0.87, 40960 * MIB, 143360 * MIB, 412.5)
    assert states["GPU-aaaa/gi7"] == State(memory_used_bytes=512 * MIB)
    assert states["GPU-bbbb"] == State(fault="Xid 79")  # the rest is NaN or absurd
    assert states["GPU-cccc"] == State()  # an application's own fault


def test_a_page_of_the_npu_exporter() -> None:
    states = read_npu(NPU)
    assert states["chip-0"] == State(0.55, 32768 * MIB, 65536 * MIB, 94.5)
    assert states["chip-1"] == State(fault="NPU unhealthy, error code 2149986311")
    assert states["chip-2"] == State()  # its health is unknown
    assert set(states) == {"chip-0", "chip-1", "chip-2"}


@given(some.binary())
def test_any_bytes_are_a_page(page: bytes) -> None:
    for read in (read_dcgm, read_npu):
        read(page)
        read(b"DCGM_FI_DEV_GPU_UTIL{" + page + b"}")


@pytest.mark.parametrize("value", ["Inf", "-1", "1e400", "1_0", "", "x"])
def test_a_value_that_cannot_be_is_unknown(value: str) -> None:
    page = f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-1"}} {value}\n'.encode()
    state = read_dcgm(page).get("GPU-1", State())
    assert state.utilization is None or value == "1_0"


@pytest.mark.parametrize(("xid", "fatal"), [(0, False), (13, False), (31, False), (48, True), (79, True), (109, False)])
def test_an_application_xid_is_not_the_devices(xid: int, fatal: bool) -> None:
    assert (xid_fault(xid) is not None) == fatal


def test_of_two_sources_the_first_is_believed_and_every_fault_counts() -> None:
    first, second = State(utilization=0.5), State(utilization=0.9, power_w=3.0, fault="Xid 79")
    assert joined(first, second) == State(utilization=0.5, power_w=3.0, fault="Xid 79")
