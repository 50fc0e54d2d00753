"""The health port, and `sonde-agent status` over it; an agent as a process without the kernel's part."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.looking.lookout import Lookout, serve
from agent.looking.status import table
from lab.machine.kubelet import Kubelet, pod, serving
from tests.agent.devices.test_inventory import DCGM, page
from tests.conftest import run
from tests.kube import pod as document
from tests.kube import pool

_RUNNING = re.compile(r"running .* port=(\d+) metrics_port=(\d+) health_port=(\d+)")


async def get(port: int, path: str, request: bytes | None = None) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request or f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), await reader.read()
    finally:
        writer.close()


def test_strangers_hear_only_whether_all_is_well() -> None:
    ailments = {"alive": "", "ready": "not yet"}
    one = Lookout(lambda: ailments["alive"], lambda: ailments["ready"], lambda: {"node": "n1"})
    assert one.answer("/healthz", "10.0.0.9") == (200, b"ok\n")
    assert one.answer("/readyz", "10.0.0.9") == (503, b"not yet\n")
    ailments |= {"alive": "stuck", "ready": ""}
    assert one.answer("/healthz", "10.0.0.9")[0] == one.answer("/readyz", "10.0.0.9")[0] == 503
    assert one.answer("/nodez", "10.0.0.9")[0] == 403
    assert json.loads(one.answer("/nodez", "127.0.0.1")[1]) == {"node": "n1"}
    assert one.answer("/", "127.0.0.1")[0] == 404


@pytest.mark.parametrize(
    "request_bytes", [b"rubbish\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n"]
)
def test_whatever_is_asked_has_an_answer(request_bytes: bytes) -> None:
    async def body() -> None:
        async with await serve(Lookout(str, str, dict), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert (await get(port, "", request_bytes))[0] == 404
            assert (await get(port, "/healthz"))[0] == 200

    run(body())


@asynccontextmanager
async def agent(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, int, int]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--without-kernel", "--node-name", "n1", "--bind", "127.0.0.1"),
        *("--port", "0", "--metrics-port", "0", "--health-port", "0", *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        while line := await process.stderr.readline():
            if found := _RUNNING.search(line.decode()):
                yield process, int(found[1]), int(found[2]), int(found[3])
                break
        else:
            raise AssertionError("the agent ended")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def status(port: int, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "status", "--health-port", str(port), *flags],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def write(folder: Path, *documents: dict[str, Any]) -> None:
    (folder / "part").write_text(yaml.safe_dump_all(documents))
    os.replace(folder / "part", folder / "all.yaml")


def test_an_agent_without_the_kernel_knows_pods_and_devices_and_says_so(tmp_path: Path) -> None:
    async def body() -> None:
        with tempfile.TemporaryDirectory(prefix="sonde") as short:
            socket = Path(short) / "kubelet.sock"
            kubelet = Kubelet(pod("a", ("nvidia.com/gpu", "GPU-aaaa")), pod("b", ("nvidia.com/gpu", "GPU-bbbb")))
            a, b = document("a", ip="127.0.0.1"), document("b", ip="127.0.0.2")
            for value in (a, b):
                value["metadata"]["uid"] = f"uid-{value['metadata']['name']}"
            write(tmp_path, pool(ports=(9,)), a, b)
            flags = ("--manifests", str(tmp_path), "--pod-resources", str(socket))
            async with serving(kubelet, socket), page([DCGM]) as url, agent(*flags, "--dcgm-exporter", url) as (
                process, _, metrics, health,
            ):  # fmt: skip
                while (await get(health, "/readyz"))[0] != 200:
                    await asyncio.sleep(0.05)
                while True:
                    node = json.loads((await get(health, "/nodez"))[1])
                    if len(node["pods"]) == 2 and all(one["devices"] for one in node["pods"]):
                        break
                    await asyncio.sleep(0.05)
                faults = {one["pod"]: one["devices"][0]["fault"] for one in node["pods"]}
                assert faults == {"a": None, "b": "Xid 79"}
                assert 0 <= node["pods"][0]["devices"][0]["age_s"] < 60
                # what is read again and is as before is younger: in the frames too
                ages_us, told = [], json.loads((await get(metrics, "/state"))[1])
                while len(ages_us) < 2 or ages_us[-1] >= ages_us[-2]:
                    told = json.loads((await get(metrics, "/state"))[1])
                    ages_us.append(int(told["endpoints"][0]["devices"][0]["age_us"]))
                    await asyncio.sleep(0.1)
                _, text = await get(metrics, "/metrics")
                assert b'sonde_pod_device_info{namespace="default",pod="a",device="GPU-aaaa"' in text
                assert b'sonde_pod_device_healthy{namespace="default",pod="b",device="GPU-bbbb"} 0' in text
                shown = await asyncio.to_thread(status, health)
                assert (shown.returncode, "Xid 79" in shown.stdout, "default/a" in shown.stdout) == (0, True, True)
                as_json = await asyncio.to_thread(status, health, "--json")
                assert json.loads(as_json.stdout)["node"] == "n1"
                process.terminate()
                assert await process.wait() == 0

    run(body(), 60, debug=False)


def test_status_without_an_agent_is_one_line() -> None:
    done = status(1)
    assert (done.returncode, done.stderr.count("\n"), "no agent answers" in done.stderr) == (1, 1, True)


def test_a_table_shows_what_is_unknown_as_a_dash() -> None:
    device = {"id": "GPU-1", "resource": "nvidia.com/gpu", "share": "2", "utilization": None}
    device |= {"memory_used_bytes": None, "fault": None, "throttled": []}
    one = {"namespace": "d", "pod": "p", "port": 1, "level": "none", "slot": None, "cgroups": None, "in_flight": None}
    node = {"node": "n", "version": "v", "watchers": 0, "problems": {"x": "broken"}, "warnings": ["w"]}
    lines = table({**node, "pods": [{**one, "devices": [device]}]})
    assert [word for line in lines for word in line.split()].count("-") == 5
    assert any(line.startswith("GPU-1::2") for line in lines)
    assert lines[-1] == "  w"
