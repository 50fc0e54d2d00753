"""Pods that come and go under clients that come and go, for as long as told: does anything stay behind?

    python -m bench.soak [--seconds 600] [--connections 64000] [--pods 4]

A real agent over real programs, on cgroups as kubelet makes them. Clients open connections, ask, stream, abort and drop
them; every few seconds a pod is replaced by a new one. Wanted at the end: nothing in flight and no connection open in
any slot, those of pods long gone included, no slot that was not given back, maps no fuller than the pods need, and an
agent no larger than after its first minute. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.kernel import cgroups, loader
from agent.kernel.maps import PinnedMaps
from agent.kernel.pins import Pins
from agent.placing.slots import SPARE
from bench.wire_ground import free_port
from lab.machine import cgroups as lab_cgroups
from lab.machine.cgroups import enter_command

NODE = "soak"
REPLACE_S = 5.0
LANES = 32
RSS_GROWTH_MIB = 8.0
SETTLE_S = 20.0
_RUNNING = re.compile(r"running .* port=(\d+) metrics_port=(\d+)")
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


@dataclass
class Pod:
    name: str
    port: int
    scope: Path
    manifest: Path
    process: subprocess.Popen[str]


@dataclass
class Soak:
    tree: Path
    manifests: Path
    logs: Path
    pods: list[Pod] = field(default_factory=list)
    made: int = 0
    asked: int = 0
    opened: int = 0

    def add(self) -> None:
        uid, name, port = str(uuid.uuid4()), f"pod-{self.made}", free_port("127.0.0.1")
        self.made += 1
        scope = lab_cgroups.container_scope(self.tree, uid, f"{self.made:064x}")
        scope.mkdir(parents=True)
        command = [sys.executable, "-m", "bench.honest_server", "127.0.0.1", str(port), os.devnull]
        process = subprocess.Popen(enter_command(scope, command), stdout=subprocess.PIPE, text=True)
        manifest = self.manifests / f"{name}.json"
        part = manifest.with_suffix(".part")
        part.write_text(json.dumps(objects(name, uid, port)))
        part.rename(manifest)
        assert process.stdout is not None
        process.stdout.readline()
        self.pods.append(Pod(name, port, scope, manifest, process))

    def remove(self, pod: Pod) -> None:
        self.pods.remove(pod)
        pod.manifest.unlink()
        pod.process.kill()
        pod.process.wait()
        assert pod.process.stdout is not None
        pod.process.stdout.close()
        lab_cgroups.remove(pod.scope.parent)


def objects(name: str, uid: str, port: int) -> dict[str, object]:
    meta = {"name": name, "namespace": "default", "labels": {"app": name}}
    ready = {"podIP": "127.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta | {"uid": uid},
        "spec": {"nodeName": NODE},
        "status": ready,
    }
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "targetPorts": [{"number": port}],
        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
    }
    pool = {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": meta, "spec": spec}
    return {"apiVersion": "v1", "kind": "List", "items": [pod, pool]}


async def lane(soak: Soak, rng: random.Random, end_s: float, connections: int) -> None:
    """Opens connections one after the other, does something on each, and drops it one way or another."""
    while time.monotonic() < end_s or soak.opened < connections:
        pod = rng.choice(soak.pods)
        soak.opened += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
                try:
                    await _use(reader, writer, soak, rng)
                finally:
                    (writer.transport.abort if rng.random() < 0.5 else writer.close)()


async def _use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, soak: Soak, rng: random.Random) -> None:
    what = rng.random()
    if what < 0.2:
        return
    soak.asked += 1
    path = "/v1/plain?size=100" if what < 0.7 else "/v1/stream?chunks=20&gap=2&wait=5"
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
    if what < 0.3:
        return
    if what < 0.85:
        await reader.readuntil(b"\r\n\r\n")
        return
    await reader.readuntil(b"0\r\n\r\n")


async def churn(soak: Soak, end_s: float) -> None:
    while time.monotonic() < end_s:
        await asyncio.sleep(REPLACE_S)
        await asyncio.to_thread(soak.add)
        await asyncio.to_thread(soak.remove, soak.pods[0])


class Page:
    """The agent's metrics, summed over pods."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            self._samples = _SAMPLE.findall(answer.read().decode())

    def sum(self, name: str, labels: str = "") -> float:
        return sum(float(value) for found, of, value in self._samples if found == name and labels in of)


async def watch(port: int, pages: list[Page], end_s: float) -> None:
    while time.monotonic() < end_s:
        await asyncio.sleep(5)
        pages.append(await asyncio.to_thread(Page, port))
        print(f"... {_line(pages[-1])}", flush=True)


def _line(page: Page) -> str:
    return (
        f"in flight {page.sum('sonde_pod_requests_in_flight'):.0f}, "
        f"open {page.sum('sonde_pod_connections_open'):.0f}, "
        f"slots {page.sum('sonde_agent_map_entries', 'slots'):.0f}, "
        f"owners {page.sum('sonde_agent_map_entries', 'owners'):.0f}, "
        f"agent {page.sum('sonde_agent_resident_memory_bytes') / 2**20:.1f} MiB"
    )


async def run(soak: Soak, port: int, seconds: float, connections: int) -> tuple[list[Page], Page]:
    end_s = time.monotonic() + seconds
    pages: list[Page] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(churn(soak, end_s))
        group.create_task(watch(port, pages, end_s))
        for n in range(LANES):
            group.create_task(lane(soak, random.Random(n), end_s, connections))
    last = await asyncio.to_thread(Page, port)
    deadline_s = time.monotonic() + SETTLE_S
    while not _settled(last) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.5)
        last = await asyncio.to_thread(Page, port)
    return pages, last


def _settled(page: Page) -> bool:
    return not page.sum("sonde_pod_requests_in_flight") and not page.sum("sonde_agent_endpoints", '"none"')


@dataclass(frozen=True, slots=True)
class Left:
    """What the kernel's slots still hold, summed over all of them: the agent's page shows only those of living pods."""

    in_flight: int
    waiting: int
    connections: int
    unbalanced: int  # slots whose requests are not all accounted for


def left(where: Pins) -> Left:
    maps = PinnedMaps(where)
    try:
        rows = maps.slots.first(maps.capacity)
        ended = sum(rows[name].astype(int) for name in ("completed", "client_aborted", "server_aborted", "lost"))
        off = rows["started"].astype(int) - rows["in_flight"] - ended
        return Left(
            int(abs(rows["in_flight"]).sum()),
            int(abs(rows["waiting"]).sum()),
            sum(maps.connections(maps.capacity)),
            int((off != 0).sum()),
        )
    finally:
        maps.close()


def report(soak: Soak, pages: list[Page], last: Page, left: Left) -> bool:
    print(f"{soak.opened} connections, {soak.asked} requests, {soak.made} pods one after the other")
    print(f"at the end {_line(last)}; in all slots {left}")
    memory = [page.sum("sonde_agent_resident_memory_bytes") / 2**20 for page in pages]
    after_start = memory[min(len(memory) - 1, 12)]
    allowed = SPARE + 4 * len(soak.pods)  # a slot whose last connection closes late is not free at once
    slots = max(page.sum("sonde_agent_map_entries", "slots") for page in pages)
    goals = {
        "nothing is in flight at the end, in slots of pods that are gone neither": not (left.in_flight or left.waiting),
        "no connection is open in any slot": not left.connections,
        "every request of every slot is accounted for": not left.unbalanced,
        f"slots in use stayed at {slots:.0f}, allowed {allowed} of {len(soak.pods)} pods": slots <= allowed,
        f"the agent grew from {after_start:.1f} to {max(memory):.1f} MiB, allowed {RSS_GROWTH_MIB:g} more": max(memory)
        <= after_start + RSS_GROWTH_MIB,
        "every pod's slot was found": not last.sum("sonde_agent_endpoints", '"none"'),
    }
    for text, good in goals.items():
        print(f"{'reached' if good else 'MISSED '}  {text}")
    return all(goals.values())


@contextlib.contextmanager
def agent(where: Pins, tree: Path, manifests: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "agent", "run", "--node-name", NODE, "--manifests", str(manifests)]
    command += ["--cgroup-root", str(tree), "--pin-root", str(where.root), "--bind", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen([*command, "--metrics-port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = None
        while found is None:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("bench.soak: the agent does not start")
            found = _RUNNING.search(line)
        # what it says later would fill the pipe
        subprocess.Popen(["cat"], stdin=process.stderr, stdout=sys.stderr)
        yield int(found[2])
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=float, default=600.0)
    options.add_argument("--connections", type=int, default=64_000)
    options.add_argument("--pods", type=int, default=4)
    arguments = options.parse_args()
    where = Pins(Path(f"/sys/fs/bpf/sonde-soak-{os.getpid()}"))
    tree = cgroups.root() / f"sonde-soak-{os.getpid()}"
    tree.mkdir()
    try:
        if loader.load(where, tree):
            return 1
        with tempfile.TemporaryDirectory() as folder:
            soak = Soak(tree, Path(folder), Path(folder))
            for _ in range(arguments.pods):
                soak.add()
            try:
                with agent(where, tree, soak.manifests) as port:
                    pages, last = asyncio.run(run(soak, port, arguments.seconds, arguments.connections))
                    return 0 if report(soak, pages, last, left(where)) else 1
            finally:
                for pod in list(soak.pods):
                    soak.remove(pod)
    finally:
        loader.unload(where)
        lab_cgroups.remove(tree)


if __name__ == "__main__":
    sys.exit(main())
