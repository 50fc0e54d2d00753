"""A small site as processes on loopback: Envoy, a controller, and upstreams that say what they received."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import envoy, manifests, processes, wire
from lab.manifests import LabPod
from lab.processes import Process
from lab.substrate import program
from lab.watch import Sample, samples
from tests.conftest import skip_or_fail

DESTINATION = envoy.DESTINATION
HOST = "127.0.0.1"
LIMIT_S = 20.0


def envoy_binary() -> Path:
    binary = envoy.find()
    if binary is None:
        skip_or_fail("gateway", "there is no Envoy: run 'make setup', or name its binary in $SONDE_ENVOY")
    assert binary is not None
    return binary


def free_port(host: str = HOST) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Site:
    """A running site."""

    folder: Path
    gateway_port: int
    metrics_port: int
    upstreams: tuple[str, ...]  # "ip:port"
    controller: Process
    envoy: Process

    async def post(self, body: bytes | dict[str, Any], path: str = "/v1/completions", **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await asyncio.to_thread(post, HOST, self.gateway_port, path, data, headers)

    async def until(self, name: str, count: int) -> None:
        """Waits until the controller's page has so many samples of a name."""
        while sum(sample.name == name for sample in await self.samples()) != count:
            await asyncio.sleep(0.05)

    async def logged(self, text: str) -> None:
        """Waits until the controller has said it."""
        while text not in self.controller.output.read_text():
            await asyncio.sleep(0.05)

    async def samples(self) -> list[Sample]:
        return samples((await wire.get(HOST, self.metrics_port, "/metrics")).decode())


def post(host: str, port: int, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)
    try:
        fields = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request("POST", path, body, fields)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def echo(address: str, port: int) -> AsyncIterator[None]:
    """An upstream that answers with its own address, the headers and the body it received."""
    async with await asyncio.start_server(lambda r, w: _echo(f"{address}:{port}", r, w), address, port):
        yield


async def _echo(own: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")[1:-2]
            headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
            body = await _body(reader, headers)
            answer = json.dumps({"own": own, "headers": headers, "body": body.decode("latin-1")}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    body = b""
    while headers.get("transfer-encoding") == "chunked":
        size = int((await reader.readline()).strip(), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if size == 0:
            break
    return body


@contextlib.asynccontextmanager
async def site(folder: Path, upstreams: int = 2, arguments: Sequence[str] = (), **gateway: Any) -> AsyncIterator[Site]:
    """Starts it, and ends all of it. `gateway`: fields of lab.envoy.Gateway; `arguments`: flags of the controller."""
    binary = envoy_binary()
    port, ips = free_port("0.0.0.0"), [f"127.0.2.{number + 1}" for number in range(upstreams)]
    pods = [LabPod(f"pod-{n + 1}", f"00000000-0000-4000-8000-{n + 1:012}", ip, "") for n, ip in enumerate(ips)]
    (folder / "manifests").mkdir()
    (folder / "logs").mkdir()
    manifests.write(folder / "manifests", [manifests.pool(port), *(manifests.pod(pod, "n", port) for pod in pods)])
    config = envoy.Gateway(
        pods=tuple((ip, port) for ip in ips), picker=(HOST, free_port()), host=HOST, sonde_port=free_port()
    )
    config = replace(config, **gateway)
    async with contextlib.AsyncExitStack() as stack:
        for ip in ips:
            await stack.enter_async_context(echo(ip, port))
        metrics_port = free_port()
        controller = await _controller(folder, config, metrics_port, arguments)
        stack.push_async_callback(controller.stop)
        (folder / "envoy.json").write_text(json.dumps(envoy.bootstrap(config)))
        proxy = await processes.start("envoy", envoy.command(binary, folder / "envoy.json"), folder / "logs")
        stack.push_async_callback(proxy.stop)
        assert config.sonde_port is not None
        await processes.listening(controller, HOST, config.picker[1], LIMIT_S)
        await processes.listening(proxy, HOST, config.sonde_port, LIMIT_S)
        addresses = tuple(f"{ip}:{port}" for ip in ips)
        here = Site(folder, config.sonde_port, metrics_port, addresses, controller, proxy)
        await here.logged("synced")  # before that every answer is 503
        yield here


async def _controller(folder: Path, config: envoy.Gateway, metrics_port: int, arguments: Sequence[str]) -> Process:
    command = program(
        "controller",
        *("--pool-name", manifests.POOL, "--manifests", str(folder / "manifests"), "--bind", HOST, "--seed", "1"),
        "--drain-delay=0s",
        *("--grpc-port", str(config.picker[1]), "--metrics-port", str(metrics_port)),
        *("--grpc-health-port", str(free_port()), f"--secure-serving={'true' if config.picker_tls else 'false'}"),
        *arguments,
    )
    return await processes.start("controller", command, folder / "logs")
