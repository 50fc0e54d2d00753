"""Engines on loopback for the tests of this folder, and a client that sees single reads."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from lab.engines import truth
from lab.engines.batching import Model
from lab.engines.control import ControlConnection
from lab.engines.engine import Engine
from lab.engines.knobs import Knobs
from lab.engines.serving import Server

FAST = Model(step_s=0.004, sequence_s=0, kv_token_s=0, prefill_token_s=0, max_sequences=2, kv_tokens=1000)


@dataclass
class Running:
    engine: Engine
    port: int
    control_port: int
    _log: io.StringIO

    @property
    def records(self) -> list[truth.Record]:
        return truth.parse(self._log.getvalue().splitlines())[0]

    @property
    def happened(self) -> list[str]:
        return [entry.what for entry in truth.parse(self._log.getvalue().splitlines())[1]]

    def gauge(self, name: str) -> float:
        page = self.engine.metrics_page().decode()
        return float(next(line for line in page.splitlines() if line.startswith(f"vllm:{name}{{")).split()[-1])

    async def until(self, condition: Any) -> None:
        """Polls the engine's own state, which nothing announces; the test's time limit bounds it."""
        while not condition():
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def engine(
    model: Model = FAST, knobs: Knobs | None = None, idle_timeout_s: float = 5.0
) -> AsyncIterator[Running]:
    out = io.StringIO()
    log = truth.Log(out)
    running = Engine(
        "lab",
        model,
        knobs or Knobs(),
        lambda what: log.write(truth.Happening("pod-1", what, time.monotonic_ns())),
    )
    server = Server(running, "pod-1", log, idle_timeout_s)
    listener = await server.listen("127.0.0.1", 0)
    control = await asyncio.get_running_loop().create_server(lambda: ControlConnection(running), "127.0.0.1", 0)
    try:
        yield Running(running, port_of(listener), port_of(control), out)
    finally:
        running.close()
        for socket in (listener, control):
            socket.close()


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, asked: Any, path: str = "/v1/completions", method: str = "POST", headers: str = "") -> None:
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: lab\r\n{headers}content-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """One chunk of a chunked body, b"" for the last."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def events(self) -> list[bytes]:
        """All chunks to the end of the body."""
        found = []
        while payload := await self.chunk():
            found.append(payload)
        return found

    async def plain(self) -> tuple[int, Any]:
        """Status and JSON of an answer with a content-length."""
        head = (await self.head()).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = await self.reader.readexactly(length)
        return int(head.split()[1]), json.loads(body) if body else None


@contextlib.asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def ask(tokens: int = 3, prompt: str = "a b", **more: Any) -> dict[str, Any]:
    return {"model": "lab", "prompt": prompt, "max_tokens": tokens, "stream": True} | more
