"""An HTTP/1.1 server that writes down what it does and when; run as a process in the cgroup that is measured.

    python -m bench.honest_server HOST PORT LOG     prints "ready" when it listens

POST /v1/plain?size=N&wait=MS                 one answer with a length
POST /v1/stream?chunks=N&gap=MS&wait=MS&early=1   an event stream; early: the header leaves before the wait
POST /v1/closing?chunks=N&gap=MS              an event stream that ends with its connection
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lab.engines.truth import CLIENT_ABORTED, COMPLETED, Log, Record

now = time.monotonic_ns
HEADER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


class Serving(asyncio.Protocol):
    """One connection. Times are taken in data_received and right before each write, as an engine could."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._received = b""
        self._first_ns = 0
        self._continued = False
        self._record: Record | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 26)

    def data_received(self, data: bytes) -> None:
        self._first_ns = self._first_ns or now()
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
        if "expect" in fields and not self._continued:
            self._continued = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(fields.get("content-length", 0))
        if len(body) < length:
            return
        target, peer = head.split()[1].decode(), self._transport.get_extra_info("peername")[1]
        self._record = Record("", peer, target, fields.get("x-request-id"), self._first_ns, now())
        self._received, self._first_ns, self._continued = body[length:], 0, False
        self._task = asyncio.get_running_loop().create_task(self._answer(self._record, target))

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._record is not None:
            self._end(self._record, CLIENT_ABORTED)

    def _end(self, record: Record, outcome: str) -> None:
        record.outcome, record.end_ns = outcome, record.end_ns or now()
        self._record = None
        self._log.write(record)

    async def _answer(self, record: Record, target: str) -> None:
        url = urlsplit(target)
        options = {name: float(values[0]) for name, values in parse_qs(url.query).items()}
        if url.path == "/v1/plain":
            await self._plain(record, int(options.get("size", 2)), options.get("wait", 0) / 1000)
        elif url.path not in ("/v1/stream", "/v1/closing"):
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        else:
            await self._stream(record, url.path == "/v1/closing", options)
        self._end(record, COMPLETED)
        if url.path == "/v1/closing":
            self._transport.close()

    async def _plain(self, record: Record, size: int, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        record.header_ns = now()
        record.data_ns.append(record.header_ns)
        record.end_ns = record.header_ns
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)

    async def _stream(self, record: Record, closing: bool, options: dict[str, float]) -> None:
        header = HEADER + (b"connection: close\r\n\r\n" if closing else b"transfer-encoding: chunked\r\n\r\n")
        early = options.get("early", 1)
        if early:
            record.header_ns = now()
            self._transport.write(header)
        await asyncio.sleep(options.get("wait", 10) / 1000)
        for n in range(int(options["chunks"])):
            data = b"data: token %d\n\n" % n
            if not closing:
                data = b"%x\r\n%s\r\n" % (len(data), data)
            if n == 0 and not early:
                data = header + data
            record.data_ns.append(now())
            self._transport.write(data)
            await asyncio.sleep(options.get("gap", 1) / 1000)
        if not closing:
            record.end_ns = now()
            self._transport.write(b"0\r\n\r\n")


async def serve(host: str, port: str, log: Log) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Serving(log), host, int(port), backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


def main() -> None:
    host, port, path = sys.argv[1:4]
    with Path(path).open("a") as out:
        asyncio.run(serve(host, port, Log(out)))


if __name__ == "__main__":
    main()
