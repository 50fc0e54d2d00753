"""The table of what happens on the wire: each scenario against what its server wrote down. `python -m bench.truth`
prints it below the lab's.

One at a time, a request is the difference of two readings of its slot; together, totals and means are compared. Of a
server that was killed there is no log; then the clients say how many requests there were. A server knows of a request
when it has read it, the kernel when it arrived: "as read" is the error without the time the kernel saw it lie unread.
Times of h2 servers include what their libraries take before and behind the handler, so no target is set for those.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import grpc.aio

from bench.matching import Call, Pair, Sample, Sampled, judge, pair
from bench.wire_client import Ask, call, now, watch
from bench.wire_ground import GroundRefused, Server, WireGround, free_port, wire_ground
from lab.contests.summary import quantile

MEDIAN_LIMIT_MS = 0.3
WAIT_S = 10.0
SMALL_BYTES = 1000
ONE_CALL_BYTES = 1_000_000  # a larger answer is written by several calls, as the socket has room


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    requests: int
    matched: int
    ttft_ms: tuple[float, ...] = ()
    unread_ms: tuple[float, ...] = ()  # the same without what the kernel saw lie unread
    gap_ms: tuple[float, ...] = ()
    duration_ms: tuple[float, ...] = ()
    chunks: int = 0
    chunks_wrong: int = 0
    sampled: Sampled = field(default_factory=lambda: Sampled(0, 0, 0))
    left: int = 0
    note: str = ""
    exact_times: bool = True  # False: the times have no target


@dataclass(frozen=True, slots=True)
class Wire:
    """One scenario of requests to the honest server."""

    name: str
    path: str
    requests: int = 20
    at_once: int = 1  # connections side by side
    body_bytes: int = 2
    keep: bool = True
    expect: bool = False
    abort_after: int | None = None
    loss: float = 0.0
    host: str = "127.0.0.1"
    replace: bool = False  # the programs, in mid-stream
    kill: bool = False  # the server
    module: str = "bench.honest_server"


STREAM = "/v1/stream?chunks=20&gap=5&wait=20"
SCENARIOS = (
    Wire("keep-alive, short answers", "/v1/plain?size=200&wait=5", 60),
    Wire("new connection for each", "/v1/plain?size=200&wait=5", 40, keep=False),
    Wire("events, early header", STREAM),
    Wire("events, late header", STREAM + "&early=0"),
    Wire("events until the connection closes", "/v1/closing?chunks=10&gap=5", keep=False),
    Wire("100-continue, 20 KB body", "/v1/plain?size=500&wait=5", 20, body_bytes=20_000, expect=True),
    Wire("100 KB body", "/v1/plain?size=100000&wait=5", 20, body_bytes=100_000),
    Wire("5 MB body", "/v1/plain?size=5000000&wait=5", 4, body_bytes=5_000_000),
    Wire("16 streams at once", STREAM, 64, at_once=16),
    Wire("200 streams at once", "/v1/stream?chunks=10&gap=50&wait=50", 200, at_once=200),
    Wire("client aborts", "/v1/stream?chunks=200&gap=5&wait=20", 15, keep=False, abort_after=3),
    Wire("server killed under 8 streams", "/v1/stream?chunks=500&gap=10", 8, at_once=8, keep=False, kill=True),
    Wire("1 % loss", STREAM, 16, at_once=4, loss=0.01),
    Wire("3 % loss", STREAM, 16, at_once=4, loss=0.03),
    Wire("5 % loss", STREAM, 16, at_once=4, loss=0.05),
    Wire("IPv6", STREAM, 10, host="::1"),
    Wire("programs replaced in mid-stream", "/v1/stream?chunks=300&gap=20", 4, at_once=4, replace=True),
    Wire("uvicorn and starlette", STREAM, 20, module="bench.asgi"),
)


async def run(ground: WireGround, wire: Wire, server: Server) -> Row:
    asks = [
        Ask(f"{server.slot}-{n}", wire.path, wire.body_bytes, wire.expect, wire.abort_after)
        for n in range(wire.requests)
    ]
    samples: list[Sample] = []
    watcher = asyncio.create_task(watch(lambda: ground.in_flight(server), samples))
    before = ground.row(server)
    try:
        with ground.losing(wire.loss):
            if wire.at_once == 1:
                calls, added = await _one_by_one(ground, wire, server, asks)
            else:
                calls, added = await _together(ground, wire, server, asks)
        await until(lambda: ground.in_flight(server) == 0)
    finally:
        watcher.cancel()
    after = ground.row(server)
    total = {name: after[name] - before[name] for name in after}
    if wire.kill:
        ended = total["server_aborted"] + total["completed"]
        return Row(wire.name, len(asks), ended, left=after["in_flight"], note="by the clients' count")
    await until(lambda: len(server.records()) >= len(asks))
    return compare(wire, pair(calls, server.records()), total, added, samples)


def compare(
    wire: Wire,
    pairs: Sequence[Pair],
    total: dict[str, int],
    added: Sequence[dict[str, int]],
    samples: Sequence[Sample],
) -> Row:
    aborted = sum(one.call.aborted for one in pairs)
    expected = {"started": len(pairs), "completed": len(pairs) - aborted, "client_aborted": aborted}
    off = max(abs(total[name] - count) for name, count in expected.items())
    most = sum(one.chunks[-1] for one in pairs)
    least = sum(one.chunks[0] for one in pairs)
    chunks = total["exact_chunks"] or total["chunks"]
    each = added or [total]
    groups = [[one] for one in pairs] if added else [list(pairs)]
    return Row(
        wire.name,
        wire.requests,
        max(0, len(pairs) - off),
        _errors(each, groups, "ttft_ns_sum", _ttft_ns),
        _errors([_read(sums) for sums in each], groups, "ttft_ns_sum", _ttft_ns) if _one_read(wire, total) else (),
        () if aborted else _errors(each, groups, "gap_ns_sum", _gaps_ns, "gaps"),
        () if aborted else _errors(each, groups, "duration_ns_sum", _duration_ns),
        chunks,
        0 if wire.body_bytes > ONE_CALL_BYTES else max(least - chunks, chunks - most, 0),
        judge(pairs, samples),
        total["in_flight"],
        exact_times=not wire.loss and wire.module == "bench.honest_server",
    )


def _errors(
    kernel: Sequence[dict[str, int]],
    groups: Sequence[Sequence[Pair]],
    what: str,
    of: Callable[[Pair], int],
    count: str = "",
) -> tuple[float, ...]:
    """Milliseconds between the kernel's mean and the server's, of each group of requests."""
    errors = []
    for sums, pairs in zip(kernel, groups, strict=False):
        n = sums[count] if count else len(pairs)
        if n and pairs:
            errors.append(abs(sums[what] - sum(of(one) for one in pairs)) / n / 1e6)
    return tuple(errors)


def _one_read(wire: Wire, total: dict[str, int]) -> bool:
    """Whether each request was read at once, so that its read delay stands for itself."""
    return total["read_delay_ns_sum"] > 0 and wire.body_bytes <= SMALL_BYTES and wire.module == "bench.honest_server"


def _read(sums: dict[str, int]) -> dict[str, int]:
    return sums | {"ttft_ns_sum": sums["ttft_ns_sum"] - sums["read_delay_ns_sum"]}


def _ttft_ns(one: Pair) -> int:
    return one.ttft_ns or 0


def _gaps_ns(one: Pair) -> int:
    times = one.record.data_ns
    return times[-1] - times[0]


def _duration_ns(one: Pair) -> int:
    return (one.record.end_ns or 0) - one.record.first_byte_ns


async def _one_by_one(
    ground: WireGround, wire: Wire, server: Server, asks: Sequence[Ask]
) -> tuple[list[Call], list[dict[str, int]]]:
    calls, added, kept = [], [], None
    before = ground.row(server)
    for ask in asks:
        result, kept = await call(server.host, server.port, ask, kept)
        if not wire.keep and kept is not None:
            kept[1].close()
            kept = None
        calls.append(result)
        await until(lambda: ground.in_flight(server) == 0)
        after = ground.row(server)
        added.append({name: after[name] - before[name] for name in after})
        before = after
    if kept is not None:
        kept[1].close()
    return calls, added


async def _together(
    ground: WireGround, wire: Wire, server: Server, asks: Sequence[Ask]
) -> tuple[list[Call], list[dict[str, int]]]:
    waiting = iter(asks)
    calls: list[Call] = []

    async def lane() -> None:
        for ask in waiting:
            try:
                result, kept = await call(server.host, server.port, ask, None)
            except (ConnectionError, asyncio.IncompleteReadError):
                continue  # the server was killed
            calls.append(result)
            if kept is not None:
                kept[1].close()

    async with asyncio.TaskGroup() as group:
        for _ in range(wire.at_once):
            group.create_task(lane())
        if wire.replace or wire.kill:
            await until(lambda: ground.in_flight(server) == wire.at_once)
        if wire.replace:
            await asyncio.to_thread(ground.replace_programs)
        if wire.kill:
            server.process.send_signal(signal.SIGKILL)
    return calls, []


async def until(condition: Callable[[], bool]) -> None:
    """Goes on without it after WAIT_S, so that the table shows what is wrong."""
    deadline_ns = now() + int(WAIT_S * 1e9)
    while not condition() and now() < deadline_ns:  # noqa: ASYNC110 - the condition is memory the kernel writes
        await asyncio.sleep(0.002)


async def grpc_streams(ground: WireGround) -> Row:
    server = ground.serve("bench.grpc_tokens")
    before = ground.row(server)
    calls: list[Call] = []
    async with grpc.aio.insecure_channel(f"{server.host}:{server.port}") as channel:
        method = channel.unary_stream("/t.T/Stream")

        async def one(id: str) -> None:
            sent = now()
            events = [token async for token in method(f"{id} 20 5".encode())]
            calls.append(Call(id, sent, now(), False, len(events)))

        async with asyncio.TaskGroup() as group:
            for n in range(40):
                group.create_task(one(f"g-{n}"))
    await until(lambda: len(server.records()) >= 40)
    after = ground.row(server)
    total = {name: after[name] - before[name] for name in after}
    wire = Wire("gRPC, 40 streams on one connection", "", 40, module="bench.grpc_tokens")
    return compare(wire, pair(calls, server.records()), total, [], [])


async def h2load(ground: WireGround) -> Row:
    """nginx says nothing of its own, so the load generator's count is the truth."""
    port = free_port("127.0.0.1")
    config = ground.folder / "nginx.conf"
    folder = ground.folder
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind[0]};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        f"http {{ access_log off; keepalive_requests 100000000; {paths} server {{ listen 127.0.0.1:{port} http2;"
        ' location / { return 200 "xxxxxxxxxxxxxxxxxxxx"; } } }'
    )
    server = ground.run(["nginx", "-c", str(config)], "127.0.0.1", port, folder / "none", ready=False)
    before = ground.row(server)
    command = ["h2load", "-n", "5000", "-c", "4", "-m", "10", f"http://127.0.0.1:{port}/"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    found = re.search(r"(\d+) succeeded", done.stdout)
    await until(lambda: ground.in_flight(server) == 0)
    after = ground.row(server)
    matched = min(after[name] - before[name] for name in ("started", "completed", "first_data"))
    asked = int(found[1]) if found else 0
    return Row("h2load to nginx", asked, matched, left=after["in_flight"], note="by h2load's count")


async def measure(ground: WireGround, only: str) -> list[Row]:
    rows = []
    for wire in SCENARIOS:
        if not re.search(only, wire.name):
            continue
        print(f"... {wire.name}", flush=True)
        if wire.module == "bench.asgi" and importlib.util.find_spec("uvicorn") is None:
            print("    left out: pip install .[bench]")
            continue
        rows.append(await run(ground, wire, ground.serve(wire.module, wire.host)))
    extra: tuple[tuple[str, bool, Callable[[WireGround], Coroutine[None, None, Row]]], ...] = (
        ("gRPC", True, grpc_streams),
        ("h2load", bool(shutil.which("h2load") and shutil.which("nginx")), h2load),
    )
    for name, possible, scenario in extra:
        if not re.search(only, name):
            continue
        print(f"... {name}", flush=True)
        if possible:
            rows.append(await scenario(ground))
        else:
            print("    left out: apt-get install nginx-light nghttp2-client")
    return rows


def report(rows: Sequence[Row]) -> bool:
    """Prints the table and the verdict; whether every target is reached."""
    heads = ["scenario", "requests", "matched", "TTFT error median", "p99", "as read", "gap error", "duration error"]
    cells = [[*heads, "chunks", "wrong", "in-flight samples", "wrong", "at end"], *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        first, *others = zip(line, widths, strict=True)
        print("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]))
    errors = list(itertools.chain.from_iterable(row.ttft_ms for row in rows if row.exact_times))
    median_ms = statistics.median(errors) if errors else 0.0
    goals = {
        f"median TTFT error {median_ms:.3f} ms, wanted at most {MEDIAN_LIMIT_MS} ms": median_ms <= MEDIAN_LIMIT_MS,
        f"{sum(row.matched for row in rows)} of {sum(row.requests for row in rows)} requests matched": all(
            row.matched == row.requests for row in rows
        ),
        f"{sum(row.chunks_wrong for row in rows)} chunk counts wrong": not any(row.chunks_wrong for row in rows),
        f"{sum(row.sampled.wrong for row in rows)} of {sum(row.sampled.samples for row in rows)} in-flight samples "
        "wrong": not any(row.sampled.wrong for row in rows),
        f"{sum(row.left for row in rows)} in flight at the end": not any(row.left for row in rows),
    }  # fmt: skip
    print()
    for text, good in goals.items():
        print(f"{'reached' if good else 'MISSED '}  {text}")
    return all(goals.values())


def _cells(row: Row) -> list[str]:
    def middle(values: Sequence[float], share: float = 0.5) -> str:
        found = quantile(values, share)
        return "-" if found is None else f"{found:.3f} ms"

    return [
        row.name + (f" ({row.note})" if row.note else ""),
        str(row.requests),
        str(row.matched),
        middle(row.ttft_ms),
        middle(row.ttft_ms, 0.99) if len(row.ttft_ms) > 1 else "-",
        middle(row.unread_ms),
        middle(row.gap_ms),
        middle(row.duration_ms),
        str(row.chunks),
        str(row.chunks_wrong),
        str(row.sampled.samples),
        str(row.sampled.wrong),
        str(row.left),
    ]


def main() -> int:
    options = argparse.ArgumentParser(description="Each scenario on the wire against what its server wrote down.")
    options.add_argument("--only", default="", help="a pattern that names of scenarios must match")
    arguments = options.parse_args()
    try:
        with wire_ground() as ground:
            rows = asyncio.run(measure(ground, arguments.only))
    except GroundRefused as error:
        print(f"bench.wire: {error}", file=sys.stderr)
        return 1
    return 0 if report(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
