"""The loads on Triton: streams that queue, clients that leave, batches over HTTP/1.1 and gRPC; its parts killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from agent.engines.samples import Page
from bench.engines import triton
from bench.engines.comparison import Load, Said
from bench.engines.environment import HERE, Environment
from bench.engines.histograms import NOBODY_SAYS, Histogram
from bench.engines.load import Ask, Reply, ask_all
from bench.engines.measuring import Bench, Judge
from bench.wire_ground import GroundRefused, Server, WireGround, free_port, listens

READY_S = 90.0
STREAMS = 6


@dataclass(frozen=True, slots=True)
class Started:
    """One server, new for each load, so that its summaries are of this load alone."""

    http: Bench
    grpc: Bench


async def run(ground: WireGround, cache: Path, only: str) -> tuple[list[Load], list[str]]:
    made = triton.environment(cache)
    models = triton.repository(ground.folder / "models")
    loads, notes = [], []
    for name, load in _loads(made):
        if re.search(only, name):
            async with _started(ground, made, models) as one:
                loads.append(await load(one, name))
    if re.search(only, "faults"):
        for part in ("triton_python_backend_stub", "tritonserver"):
            async with _started(ground, made, models) as one:
                notes.append(await _killed(one.http, part))
    return loads, notes


@contextlib.asynccontextmanager
async def _started(ground: WireGround, made: Environment, models: Path) -> AsyncIterator[Started]:
    ports = triton.Ports(*(free_port("127.0.0.1") for _ in range(3)))
    command = triton.command(made, models, ports)
    server = ground.run(command, "127.0.0.1", ports.http, ground.folder / "none", ready=False, within_s=READY_S)
    if not listens(server.host, ports.metrics, server.process, READY_S):
        raise GroundRefused("Triton has no metrics page")
    grpc = replace(server, port=ports.grpc, slot=ground.own(ports.grpc))
    benches = [Bench(ground, one, ports.metrics) for one in (server, grpc)]
    try:
        yield Started(*benches)
    finally:
        _end(ground, server)


def _end(ground: WireGround, server: Server) -> None:
    """Its models run in processes of their own, which would stay."""
    server.process.kill()
    server.process.wait()
    while processes := _processes(ground):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _kill(ground: WireGround, part: str) -> None:
    """Every process of the engine whose program is called so."""
    for process in _processes(ground):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if part.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0", 1)[0]:
                os.kill(process, signal.SIGKILL)


def _processes(ground: WireGround) -> list[int]:
    return [int(line) for line in (ground.cgroup / "cgroup.procs").read_text().split()]


def _loads(made: Environment) -> Iterator[tuple[str, Callable[[Started, str], Coroutine[None, None, Load]]]]:
    rng = Random(1)

    def http(asks: list[Ask], lanes: int, judge: Judge) -> Callable[[Started, str], Coroutine[None, None, Load]]:
        return lambda one, name: one.http.load(name, asks, lanes, judge)

    def grpc(model: str, count: int, lanes: int) -> Callable[[Started, str], Coroutine[None, None, Load]]:
        return lambda one, name: one.grpc.measure(
            name, lambda: _ask_grpc(made, one.grpc.server.port, model, count, lanes), _judge(model)
        )

    stream, batch = _judge(triton.STREAM), _judge(triton.BATCH)
    yield "streams, 2 at a time, 2 run", http([triton.ask_stream(rng) for _ in range(16)], 2, stream)
    yield "streams, 8 at a time, 2 run", http([triton.ask_stream(rng) for _ in range(40)], 8, stream)
    yield "streams, 8 at a time, every third client leaves", http(list(_impatient(rng, 36)), 8, stream)
    yield "batches of 4, 12 at a time", http([triton.ask_batch(rng) for _ in range(120)], 12, batch)
    yield "gRPC, streams, 8 at a time", grpc(triton.STREAM, 40, 8)
    yield "gRPC, batches of 4, 12 at a time", grpc(triton.BATCH, 120, 12)


def _impatient(rng: Random, count: int) -> Iterator[Ask]:
    for n in range(count):
        one = triton.ask_stream(rng, 8)
        if n % 6 == 0:
            yield replace(one, leave_after_s=0.05)
        elif n % 6 == 3:
            yield replace(one, leave_after_events=3)
        else:
            yield one


def _judge(model: str) -> Judge:
    """Its times are of whole answers; where an answer is one piece that is the first data too."""

    def judge(before: Page, after: Page, kernel_first: Histogram) -> Said:
        whole = triton.durations(after, model)
        first = whole if model == triton.BATCH else NOBODY_SAYS
        return Said(triton.finished(after, model) - triton.finished(before, model), first, whole)

    return judge


async def _ask_grpc(made: Environment, port: int, model: str, count: int, lanes: int) -> list[Reply]:
    """By Triton's own client, in its environment; it prints a line for each answer."""
    script = str(HERE / "triton_grpc.py")
    command = (str(made.python), script, f"127.0.0.1:{port}", model, str(count), str(lanes))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise GroundRefused(f"{script} fails; see above")
    return [_reply(*map(int, line.split())) for line in said.decode().splitlines()]


def _reply(sent_ns: int, first_ns: int, over_ns: int, pieces: int) -> Reply:
    return Reply(sent_ns, over_ns, 200, first_ns, pieces)


async def _killed(bench: Bench, part: str) -> str:
    print(f"... {part} killed", flush=True)
    asks = [triton.ask_stream(Random(n), tokens=300) for n in range(STREAMS)]
    streams = asyncio.create_task(_all(bench, asks))
    await asyncio.to_thread(bench.until, lambda: bench.now() == (STREAMS, STREAMS - triton.INSTANCES))
    before = bench.ground.row(bench.server)
    _kill(bench.ground, part)
    killed_s = time.monotonic()
    empty = await asyncio.to_thread(bench.until, lambda: bench.now()[0] == 0)
    took_s = time.monotonic() - killed_s
    if not empty:
        streams.cancel()
    replies = await _results(streams)
    after = bench.ground.row(bench.server)
    ends = ("completed", "client_aborted", "server_aborted", "lost", "status_5xx")
    counted = ", ".join(f"{name} {after[name] - before[name]}" for name in ends)
    cut, failed = sum(reply.cut for reply in replies), sum(reply.failed for reply in replies)
    return (
        f"{part} killed under {STREAMS} streams: in flight {before['in_flight']}, then "
        f"{f'0 after {took_s:.2f} s' if empty else f'still {bench.now()[0]} after {took_s:.0f} s'} ({counted}); "
        f"clients: {cut} cut, {failed} with an error event"
    )


async def _all(bench: Bench, asks: list[Ask]) -> list[Reply]:
    return await ask_all(bench.server.host, bench.server.port, asks, STREAMS)


async def _results(streams: asyncio.Task[list[Reply]]) -> list[Reply]:
    try:
        return await streams
    except (OSError, asyncio.CancelledError) as error:
        print(f"    {error!r}", file=sys.stderr)
        return []
