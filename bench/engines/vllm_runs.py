"""The loads on vLLM: one, some, more than it runs at once, clients that leave; its core stopped, then killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from agent.engines.families import read_page
from agent.engines.samples import Page
from bench.engines import vllm
from bench.engines.comparison import Load, Said, said
from bench.engines.histograms import Histogram
from bench.engines.load import Ask, Reply, ask_all
from bench.engines.measuring import Bench, Judge
from bench.wire_ground import WireGround, free_port

READY_S = 300.0
STOPPED_S = 2.0
STREAMS = 12
LONG = 400  # tokens; none of these is to end by itself


async def run(ground: WireGround, cache: Path, only: str) -> tuple[list[Load], list[str]]:
    made = vllm.environment(cache)
    port = free_port("127.0.0.1")
    print("... vLLM starts", flush=True)
    command = vllm.command(made, vllm.model(cache, made), port)
    server = ground.run(command, "127.0.0.1", port, ground.folder / "none", ready=False, within_s=READY_S)
    bench = Bench(ground, server, port)
    await ask_all("127.0.0.1", port, [vllm.ask(Random(0))] * 4, 1)  # the first ones compile
    loads = [
        await bench.load(name, asks, lanes, judge)
        for name, asks, lanes, judge in _loads(Random(1))
        if re.search(only, name)
    ]
    return loads, [note async for note in _faults(bench)] if re.search(only, "faults") else []


def _loads(rng: Random) -> Iterator[tuple[str, list[Ask], int, Judge]]:
    yield "one at a time", [vllm.ask(rng) for _ in range(20)], 1, _judge
    yield "6 at a time", [vllm.ask(rng) for _ in range(60)], 6, _judge
    yield f"24 at a time, {vllm.RUNNING_AT_ONCE} run", [vllm.ask(rng) for _ in range(120)], 24, _judge
    yield "24 at a time, every third client leaves", list(_impatient(rng, 90)), 24, _judge
    yield "not streamed, 12 at a time", [vllm.ask(rng, stream=False) for _ in range(36)], 12, _judge_whole


def _impatient(rng: Random, count: int) -> Iterator[Ask]:
    """Every third leaves, in turn while it waits and after some tokens."""
    for n in range(count):
        one = vllm.ask(rng, tokens=24)
        if n % 6 == 0:
            yield replace(one, leave_after_s=0.2)
        elif n % 6 == 3:
            yield replace(one, leave_after_events=5)
        else:
            yield one


def _judge(before: Page, after: Page, kernel_first: Histogram) -> Said:
    first, whole = (_rise(read, before, after) for read in (vllm.first_tokens, vllm.durations))
    return said(vllm.finished(after) - vllm.finished(before), first, whole, kernel_first)


def _judge_whole(before: Page, after: Page, kernel_first: Histogram) -> Said:
    """What is not streamed has its first token inside the engine long before its first byte."""
    whole = _rise(vllm.durations, before, after)
    return said(vllm.finished(after) - vllm.finished(before), None, whole, kernel_first)


def _rise(read: Callable[[Page], Histogram | None], before: Page, after: Page) -> Histogram | None:
    old, new = read(before), read(after)
    return new.since(old) if old is not None and new is not None else new


async def _faults(bench: Bench) -> AsyncIterator[str]:
    core = vllm.core([int(line) for line in (bench.ground.cgroup / "cgroup.procs").read_text().split()])
    if core is None:
        yield "the engine's core is not found"
        return
    yield await _stopped(bench, core)
    yield await _killed(bench, core)


async def _streams(bench: Bench) -> asyncio.Task[list[Reply]]:
    """Streams that would go on for long, with some that wait for their turn."""
    asks = [vllm.ask(Random(n), tokens=LONG) for n in range(STREAMS)]
    streams = asyncio.create_task(ask_all(bench.server.host, bench.server.port, asks, STREAMS))
    await asyncio.to_thread(bench.until, lambda: bench.now() == (STREAMS, STREAMS - vllm.RUNNING_AT_ONCE))
    return streams


async def _stopped(bench: Bench, core: int) -> str:
    """Alive but still, as an engine that hangs."""
    streams = await _streams(bench)
    os.kill(core, signal.SIGSTOP)
    await asyncio.sleep(STOPPED_S)
    row = bench.ground.row(bench.server)
    silent_s = (time.monotonic_ns() - row["last_byte_ns"]) / 1e9
    page = read_page(await asyncio.to_thread(bench.page))
    health = await asyncio.to_thread(_health, bench)
    os.kill(core, signal.SIGCONT)
    replies = await streams
    return (
        f"core stopped for {STOPPED_S:g} s under {STREAMS} streams: the kernel has {row['in_flight']} in flight, "
        f"{row['waiting']} without first data, last byte {silent_s:.2f} s ago; the engine's page says running "
        f"{page.running}, waiting {page.waiting}, /health {health}; afterwards {_ends(replies)}"
    )


async def _killed(bench: Bench, core: int) -> str:
    streams = await _streams(bench)
    before = bench.ground.row(bench.server)
    os.kill(core, signal.SIGKILL)
    killed_s = time.monotonic()
    empty = await asyncio.to_thread(bench.until, lambda: bench.now()[0] == 0)
    took_s = time.monotonic() - killed_s
    replies = await streams
    health = await asyncio.to_thread(_health, bench)
    after = bench.ground.row(bench.server)
    ends = ("completed", "client_aborted", "server_aborted", "lost", "status_5xx")
    counted = ", ".join(f"{name} {after[name] - before[name]}" for name in ends)
    return (
        f"core killed under {STREAMS} streams: in flight {before['in_flight']}, then "
        f"{f'0 after {took_s:.2f} s' if empty else 'never 0'} ({counted}); clients: {_ends(replies)}; /health {health}"
    )


def _ends(replies: Sequence[Reply]) -> str:
    whole = sum(not reply.cut and not reply.failed for reply in replies)
    failed, cut = sum(reply.failed for reply in replies), sum(reply.cut for reply in replies)
    return f"{whole} answers whole, {failed} with an error event in a stream of status 200 or a status, {cut} cut"


def _health(bench: Bench) -> str:
    try:
        with urllib.request.urlopen(f"http://{bench.server.host}:{bench.server.port}/health", timeout=5) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return f"does not answer ({error})"
