"""Pods' devices and their states, from kubelet, annotations and pages that come, fail and come back."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.devices import inventory
from agent.devices.health import State
from agent.devices.inventory import Inventory, Sources
from agent.devices.names import ASCEND_REAL, device
from lab.machine.kubelet import Kubelet, pod, serving
from tests.conftest import DATA, run

DCGM, NPU = (DATA / "devices" / "dcgm.txt").read_bytes(), (DATA / "devices" / "npu.txt").read_bytes()


@asynccontextmanager
async def page(content: list[bytes]) -> AsyncIterator[str]:
    """Serves the first of `content`, which a test may change; an empty list closes without an answer."""

    open_ones: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if content:
                body = content[0]
                writer.write(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it was asked by one that has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            await answer(reader, writer)
        finally:
            open_ones.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    finally:
        server.close()
        while open_ones:
            await asyncio.wait(set(open_ones))


@asynccontextmanager
async def running(sources: Sources) -> AsyncIterator[Inventory]:
    one = Inventory(sources, kubelet_s=0.04, states_s=0.02)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def test_kubelet_says_who_has_what_and_the_page_how_it_is() -> None:
    async def body() -> None:
        with tempfile.TemporaryDirectory(prefix="sonde") as folder:
            socket = Path(folder) / "kubelet.sock"
            content = [DCGM]
            kubelet = Kubelet(pod("a", ("nvidia.com/gpu", "GPU-aaaa")), pod("b", ("nvidia.com/gpu", "GPU-bbbb::1")))
            async with page(content) as url, running(Sources(socket, dcgm=url)) as known:
                await until(lambda: known.status.get("kubelet") and known.status["kubelet"].problem)
                async with serving(kubelet, socket):
                    await until(lambda: known.held and known.states)
                    ((_, state),) = known.of(("default", "a"), {})
                    assert state.utilization == 0.87
                    ((shared, lost),) = known.of(("default", "b"), {})
                    assert (shared.share, lost.fault) == ("1", "Xid 79")
                    assert known.of(("default", "c"), {}) == ()
                await until(lambda: known.status["kubelet"].problem)
                assert known.of(("default", "a"), {})  # the last known answer stays

    run(body())


def test_the_annotation_comes_before_kubelet_and_vnpus_share_their_chips_state() -> None:
    async def body() -> None:
        async with page([NPU]) as url, running(Sources(npu=url)) as known:
            await until(lambda: known.states)
            known.held = {("default", "a"): (known.of(("x", "x"), {ASCEND_REAL: "Ascend910-0"})[0][0],)}
            ((real, state),) = known.of(("default", "a"), {ASCEND_REAL: "Ascend910-1"})
            assert real.id == "Ascend910-1"
            assert state.fault == "NPU unhealthy, error code 2149986311"
            ((virtual, part),) = known.of(("default", "v"), {ASCEND_REAL: "Ascend910-2c-100-0"})
            assert (virtual.parent, part.utilization) == ("chip-0", 0.55)
            assert known.of(("default", "a"), {ASCEND_REAL: "rubbish"})[0][0].id == "Ascend910-0"

    run(body())


def test_a_page_that_stays_away_is_unknown_after_a_while() -> None:
    async def body() -> None:
        content = [DCGM]
        async with page(content) as url, running(Sources(dcgm=url)) as known:
            await until(lambda: known.states)
            content.clear()
            await until(lambda: known.status["dcgm"].failures)
            assert known.states or known.status["dcgm"].failures >= inventory.FORGET_AFTER
            await until(lambda: not known.states)
            content.append(DCGM)
            await until(lambda: known.states)
            assert known.status["dcgm"].problem == ""

    run(body())


def test_without_nvml_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with page([DCGM]) as url, running(Sources(dcgm=url, nvml=True)) as known:
            await until(lambda: known.states)
            assert known.states["GPU-aaaa"] != State()
            await until(lambda: len(known.status) == 2)

    run(body())


def test_the_one_slice_of_a_pod_is_the_exporters_one_slice_of_it() -> None:
    labels = 'gpu="0",UUID="GPU-aaaa",GPU_I_PROFILE="1g.18gb",GPU_I_ID="7",namespace="default",pod="a"'
    lost = b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-aaaa"} 79\n'
    used = f"DCGM_FI_DEV_FB_USED{{{labels}}} 512\n".encode()

    async def body() -> None:
        content = [used]
        async with page(content) as url, running(Sources(dcgm=url)) as known:
            slices = device("nvidia.com/mig-1g.18gb", "MIG-1"), device("nvidia.com/mig-1g.18gb", "MIG-2")
            assert slices[0] is not None
            assert slices[1] is not None
            known.held = {("default", "a"): (slices[0],), ("default", "b"): (slices[1],)}
            await until(lambda: known.states)
            assert known.of(("default", "a"), {})[0][1] == State(memory_used_bytes=512 << 20)
            assert known.of(("default", "b"), {})[0][1] == State()
            content[0] = used + lost
            await until(lambda: known.of(("default", "a"), {})[0][1].fault == "Xid 79")
            known.held = {("default", "a"): (slices[0], slices[1])}  # which of two it is nobody says
            assert [state for _, state in known.of(("default", "a"), {})] == [State(), State()]

    run(body())
