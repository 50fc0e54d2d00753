"""`sonde-controller` as a process that watches an API server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from controller.gateway.modes import BUFFERED
from tests.apiserver import ApiServer, serving
from tests.conftest import run
from tests.controller import messages as m
from tests.controller.test_daemon import NOT_SERVING, SERVING, Running, asked, free_port
from tests.kube import kubeconfig, pod, pool


@asynccontextmanager
async def controller(server: ApiServer, folder: Path) -> AsyncIterator[Running]:
    ports = [free_port() for _ in range(3)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller", "--pool-name", "llm"),
        *("--kubeconfig", str(kubeconfig(folder, server.url, server.token))),
        *("--bind", "127.0.0.1", "--secure-serving=false", "--grpc-port", str(ports[0])),
        *("--grpc-health-port", str(ports[1]), "--metrics-port", str(ports[2])),
        stderr=asyncio.subprocess.PIPE,
    )
    running = Running(process, *ports)
    try:
        await running.health("liveness")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def picked(running: Running) -> str | None:
    _, answer = await asked(running.port, m.headers(BUFFERED), m.body(), answers=2)
    return m.header_pick(answer)


def test_it_picks_what_the_api_server_says_and_goes_on_without_it(tmp_path: Path) -> None:
    async def body() -> None:
        with serving(token="t") as server:
            async with controller(server, tmp_path) as running:
                assert await running.health("readiness") == NOT_SERVING
                server.put(pool())
                server.put(pod("a", ip="127.0.4.1"))
                await running.until("readiness", SERVING)
                await running.sampled("sonde_controller_endpoint_ready", 1)
                assert await picked(running) == "127.0.4.1:8000"
                server.put(pod("b", ip="127.0.4.2"))
                server.delete(pod("a"))
                while await picked(running) != "127.0.4.2:8000":
                    await asyncio.sleep(0.02)
                await asyncio.to_thread(server.stop)
                assert await picked(running) == "127.0.4.2:8000"
                assert await running.health("readiness") == SERVING
                status, said = await running.end()
                assert status == 0
                assert "Traceback" not in said

    run(body(), 60, debug=False)


def test_without_any_access_it_says_what_is_missing(tmp_path: Path) -> None:
    async def body() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controller", "--pool-name", "llm", "--bind", "127.0.0.1"),
            *("--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"),
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 1
        last = said.decode().splitlines()[-1]
        assert "no access to an API server" in last
        assert "--manifests" in last
        assert b"Traceback" not in said

    run(body(), 60, debug=False)
