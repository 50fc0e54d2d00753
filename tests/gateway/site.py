"""A small site as processes on loopback: Envoy, a controller, and upstreams that say what they received."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import wire
from lab.looking.watch import Sample, samples
from lab.machine import envoy, manifests, processes
from lab.machine.manifests import LabPod
from lab.machine.processes import Process
from lab.machine.substrate import program
from tests.conftest import skip_or_fail

DESTINATION = envoy.DESTINATION
HOST = "127.0.0.1"
LIMIT_S = 20.0
ENDING_S = 30.0


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
    metrics_ports: tuple[int, ...]  # of each controller
    upstreams: tuple[str, ...]  # "ip:port"
    controllers: list[Process]
    commands: list[list[str]]  # that started them
    envoy: Process
    admin_port: int
    echoes: list[asyncio.Server]  # one for each upstream

    @property
    def controller(self) -> Process:
        return self.controllers[0]

    async def restart(self, at: int) -> None:
        """One controller ends in order and another takes its place; returns once the gateway uses it."""
        await self.controllers[at].stop(ENDING_S)
        await self.uses(len(self.controllers) - 1)
        self.controllers[at] = await processes.start(f"controller-{at}", self.commands[at], self.folder / "logs")
        await self.uses(len(self.controllers))

    async def uses(self, count: int) -> None:
        """Waits until the gateway holds so many pickers for healthy."""
        while True:
            page = (await wire.get(HOST, self.admin_port, "/clusters?format=json")).decode()
            clusters = json.loads(page)["cluster_statuses"]
            hosts = next(cluster["host_statuses"] for cluster in clusters if cluster["name"] == "picker")
            if sum(not any(v is True for v in host["health_status"].values()) for host in hosts) == count:
                return
            await asyncio.sleep(0.05)

    async def post(self, body: bytes | dict[str, Any], path: str = "/v1/completions", **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await asyncio.to_thread(post, HOST, self.gateway_port, path, data, headers)

    async def until(self, name: str, count: int) -> None:
        """Waits until the controller's page has so many samples of a name."""
        while sum(sample.name == name for sample in await self.samples()) != count:
            await asyncio.sleep(0.05)

    async def value(self, name: str, holds: Callable[[float], bool]) -> None:
        """Waits until the sum of a name's samples on the first controller's page is as wanted."""
        while not holds(sum(sample.value for sample in await self.samples() if sample.name == name)):
            await asyncio.sleep(0.05)

    async def logged(self, text: str) -> None:
        """Waits until every controller has said it."""
        while not all(text in one.output.read_text() for one in self.controllers):
            await asyncio.sleep(0.05)

    async def samples(self, at: int = 0) -> list[Sample]:
        return samples((await wire.get(HOST, self.metrics_ports[at], "/metrics")).decode())


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
async def echo(address: str, port: int) -> AsyncIterator[asyncio.Server]:
    """An upstream that answers with its own address, the headers and the body it received."""
    limit = 32 << 20  # of a header line in theory; in practice of the stream's buffer
    async with await asyncio.start_server(
        lambda r, w: _echo(f"{address}:{port}", r, w), address, port, limit=limit
    ) as server:
        yield server


async def _echo(own: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")[1:-2]
            headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
            body = await _body(reader, headers)
            told = {
                "own": own,
                "path": head.split(b" ")[1].decode(),
                "headers": headers,
                "body": body.decode("latin-1"),
            }
            answer = json.dumps(told).encode()
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
async def site(
    folder: Path,
    upstreams: int = 2,
    arguments: Sequence[str] = (),
    objects: Sequence[Any] = (),
    replicas: int = 1,
    failure_mode: str = "FailClose",
    **gateway: Any,
) -> AsyncIterator[Site]:
    """Starts it, and ends all of it.

    gateway: fields of lab.envoy.Gateway; arguments: flags of the controllers; objects: further ones of the cluster.
    """
    binary = envoy_binary()
    port, ips = free_port("0.0.0.0"), [f"127.0.2.{number + 1}" for number in range(upstreams)]
    pods = [LabPod(f"pod-{n + 1}", f"00000000-0000-4000-8000-{n + 1:012}", ip, "") for n, ip in enumerate(ips)]
    (folder / "manifests").mkdir()
    (folder / "logs").mkdir()
    pool = manifests.pool(port)
    pool["spec"]["endpointPickerRef"]["failureMode"] = failure_mode
    manifests.write(folder / "manifests", [pool, *(manifests.pod(pod, "n", port) for pod in pods), *objects])
    pickers = [(HOST, free_port()) for _ in range(replicas)]
    config = envoy.Gateway(
        pods=tuple((ip, port) for ip in ips),
        picker=pickers[0],
        more_pickers=tuple(pickers[1:]),
        host=HOST,
        sonde_port=free_port(),
        admin_port=free_port(),
    )
    config = replace(config, **gateway)
    async with contextlib.AsyncExitStack() as stack:
        echoes = [await stack.enter_async_context(echo(ip, port)) for ip in ips]
        metrics_ports = [free_port() for _ in pickers]
        commands = [
            _command(folder, config, picker[1], metrics_port, arguments)
            for picker, metrics_port in zip(pickers, metrics_ports, strict=True)
        ]
        controllers: list[Process] = []

        async def stop() -> None:
            for one in controllers:
                await one.stop()

        stack.push_async_callback(stop)
        for at, command in enumerate(commands):
            name = "controller" if at == 0 else f"controller-{at}"
            controllers.append(await processes.start(name, command, folder / "logs"))
        (folder / "envoy.json").write_text(json.dumps(envoy.bootstrap(config)))
        proxy = await processes.start("envoy", envoy.command(binary, folder / "envoy.json"), folder / "logs")
        stack.push_async_callback(proxy.stop)
        assert config.sonde_port is not None
        assert config.admin_port is not None
        for one, picker in zip(controllers, pickers, strict=True):
            await processes.listening(one, HOST, picker[1], LIMIT_S)
        await processes.listening(proxy, HOST, config.sonde_port, LIMIT_S)
        addresses = tuple(f"{ip}:{port}" for ip in ips)
        here = Site(
            folder,
            config.sonde_port,
            tuple(metrics_ports),
            addresses,
            controllers,
            commands,
            proxy,
            config.admin_port,
            echoes,
        )
        await here.logged("synced")  # before that every answer is 503
        if config.health_check_s is not None:
            await here.uses(replicas)
        yield here


def _command(folder: Path, config: envoy.Gateway, port: int, metrics_port: int, arguments: Sequence[str]) -> list[str]:
    return program(
        "controller",
        *("--pool-name", manifests.POOL, "--manifests", str(folder / "manifests"), "--bind", HOST, "--seed", "1"),
        *("--grpc-port", str(port), "--metrics-port", str(metrics_port), "--drain-delay=0s"),
        *("--grpc-health-port", str(free_port()), f"--secure-serving={'true' if config.picker_tls else 'false'}"),
        *arguments,
    )
