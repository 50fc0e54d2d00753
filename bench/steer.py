"""What steering costs and keeps: connect() with and without, shares, tables put under load, endpoints removed, a kill.

    python -m bench.steer [cost] [shares] [swap] [removal] [kill]     all of them where none is named

Loads the programs onto a cgroup of its own, with clients inside it and servers on addresses of 127/8. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from agent.cluster.objects import Cluster, cluster_of, read_object
from agent.kernel import bpfsys, cgroups, loader, steer_loader, steer_pins
from agent.kernel.pins import Pins
from agent.kernel.steer_layout import SLOTS
from agent.steering.alias import Column, table
from agent.steering.maps import Entry, Frontend, SteerMaps
from agent.steering.steering import Steering
from lab.machine import cgroups as places

VIP = "127.96.0.10"
NAMES = "abcd"
WEIGHTS = {"a": 5.0, "b": 3.0, "c": 1.0, "d": 1.0}
RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")


@dataclass
class Client:
    process: subprocess.Popen[str]

    def begin(self, **asked: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, **asked: Any) -> Any:
        self.begin(**asked)
        return self.result()


@dataclass
class Ground:
    pins: Pins
    cgroup: Path
    maps: SteerMaps
    port: int  # of all endpoints, and of the Service
    inside: Client
    outside: Client

    @property
    def frontend(self) -> Frontend:
        return Frontend(VIP, self.port)

    def columns(self, names: str) -> list[Column]:
        return [Column(f"127.0.1.{NAMES.index(name) + 1}", self.port, NAMES.index(name)) for name in names]

    def steer(self, weights: dict[str, float]) -> None:
        self.maps.put_table(0, table(self.columns("".join(weights)), list(weights.values())))
        self.maps.put_service(self.frontend, Entry(0, 0))


def cost(ground: Ground) -> None:
    """Processor time of connect() for the same address, steered and not, in turns; of another address, too.

    The client is in a cgroup that has the steering programs alone: those that measure cost what bench.overhead says.
    """
    rounds: dict[str, list[float]] = {"no programs": [], "another address": [], "steered": []}
    other, vip = ["127.0.1.2", ground.port], [VIP, ground.port]
    with beating(ground), alone(ground) as steered:
        ground.steer({"a": 1.0})
        for _ in range(21):
            rounds["no programs"].append(ground.outside.ask(time=vip, times=1000))
            rounds["another address"].append(steered.ask(time=other, times=1000))
            rounds["steered"].append(steered.ask(time=vip, times=1000))
        for what, ns in program_ns(ground).items():
            print(f"  program {what:<14} {ns:6.0f} ns a run, net of an empty one")
    base = rounds["no programs"]
    for what, each in rounds.items():
        more = median(now - before for now, before in zip(each, base, strict=True))
        print(f"  connect(), {what:<16} {median(each) / 1000:6.2f} us, {more / 1000:+.2f} us")


@contextlib.contextmanager
def alone(ground: Ground) -> Iterator[Client]:
    """A client in a cgroup of its own that has no other programs."""
    cgroup = ground.cgroup.with_name(f"{ground.cgroup.name}-alone")
    cgroup.mkdir()
    with contextlib.ExitStack() as undo:
        undo.callback(remove, cgroup)
        folder = os.open(cgroup, os.O_RDONLY)
        undo.callback(os.close, folder)
        for hook in steer_loader.attached(ground.pins):
            assert hook.program is not None
            program = bpfsys.program_by_id(hook.program.id)
            undo.callback(os.close, program)
            undo.callback(os.close, bpfsys.link_create(program, folder, steer_pins.LINKS[hook.name]))
        yield undo.enter_context(client(cgroup))


def program_ns(ground: Ground) -> dict[str, float]:
    """The kernel's own timing of the programs at connect4, for an address that is steered and for one that is not."""
    hook = steer_pins.CONNECT4
    folder = os.open(ground.cgroup, os.O_RDONLY)
    empty = bpfsys.address_program(RETURN_1, "empty", hook)
    link = bpfsys.link_create(empty, folder, hook)
    ours = bpfsys.program_by_id(bpfsys.programs_attached(folder, hook)[0])
    statistics = bpfsys.time_programs()
    try:
        found = {}
        for what, address in (("steered", VIP), ("another", "127.0.1.2")):
            before = [bpfsys.program_info(fd) for fd in (ours, empty)]
            ground.inside.ask(time=[address, ground.port], times=5000)
            after = [bpfsys.program_info(fd) for fd in (ours, empty)]
            own, none = (
                (now.run_time_ns - old.run_time_ns) / (now.run_count - old.run_count)
                for now, old in zip(after, before, strict=True)
            )
            found[what] = own - none
        return found
    finally:
        for fd in (statistics, link, empty, ours, folder):
            os.close(fd)


def shares(ground: Ground) -> None:
    connects = 20_000
    with beating(ground):
        ground.steer(WEIGHTS)
        counts = ground.maps.endpoints["connections"]
        before = counts[: len(NAMES)].copy()
        ground.inside.ask(time=[VIP, ground.port], times=connects)
        got = [int(count) for count in counts[: len(NAMES)] - before]
    total = sum(WEIGHTS.values())
    worst = 0.0
    for name, count in zip(NAMES, got, strict=True):
        wanted = WEIGHTS[name] / total
        worst = max(worst, abs(count / sum(got) - wanted))
        print(f"  {name}: {count / sum(got):.4f} of {sum(got)}, wanted {wanted:.4f}")
    print(f"  worst {worst * 100:.2f} points")


def swap(ground: Ground) -> None:
    """Full tables put one for the other under load: half of the endpoints in each, spread over all columns."""
    halves = {names: full_table(ground, names) for names in ("ab", "cd")}
    with beating(ground):
        ground.maps.put_table(0, halves["ab"])
        ground.maps.put_service(ground.frontend, Entry(0, 0))
        until_s = time.monotonic() + 8.0
        ground.inside.begin(load=[VIP, ground.port], threads=8, until_s=until_s)
        swaps: list[tuple[float, float, str]] = []
        while time.monotonic() < until_s - 0.3:
            names = ("cd", "ab")[len(swaps) % 2]
            began_s = time.monotonic()
            ground.maps.put_table(0, halves[names])
            swaps.append((began_s, time.monotonic(), names))
            time.sleep(0.1)
        made = ground.inside.result()
    _tell_swaps(swaps, made)
    began_s = time.thread_time()
    full_table(ground, "ab")
    print(f"  building a table of {SLOTS} columns takes {(time.thread_time() - began_s) * 1000:.1f} ms")


def full_table(ground: Ground, names: str) -> bytes:
    columns = ground.columns(names)
    return table([columns[at % len(columns)] for at in range(SLOTS)], [1.0 + at % 5 for at in range(SLOTS)])


def _tell_swaps(swaps: list[tuple[float, float, str]], made: list[tuple[float, float, str]]) -> None:
    wrong = [answer for _, _, answer in made if answer not in NAMES]
    late = first = 0
    seen: list[float] = []
    for (began_s, done_s, names), (next_s, _, _) in zip(swaps, [*swaps[1:], (float("inf"), 0.0, "")], strict=True):
        since = [one for one in made if one[0] >= done_s and one[1] <= next_s]
        late += sum(answer not in names for _, _, answer in since)
        first += len(since)
        new = [ended_s for _, ended_s, answer in made if began_s <= ended_s <= next_s and answer in names]
        seen += [min(new) - began_s] if new else []
    whole = [(done_s - began_s) * 1000 for began_s, done_s, _ in swaps]
    print(f"  {len(swaps)} tables of {SLOTS} columns put, {len(made)} connections, {len(wrong)} to nobody")
    print(f"  first connection by the new table: median {median(seen) * 1000:.2f} ms after its putting began")
    print(f"  until nobody can see the old one: median {median(whole):.1f} ms, longest {max(whole):.1f} ms")
    print(f"  of {first} connections begun after that, {late} by the old table")


def removal(ground: Ground) -> None:
    """From the agent's learning that a pod is not Ready to the last connection that was sent there."""
    print("  " + asyncio.run(_removal(ground)))


async def _removal(ground: Ground) -> str:
    steering = Steering(ground.maps, {}, complete=True)
    run = asyncio.create_task(steering.run())
    steering.take(cluster(ground.port, "abcd"))
    await asyncio.sleep(1.0)  # until the first table is there
    until_s = time.monotonic() + 8.0
    ground.inside.begin(load=[VIP, ground.port], threads=8, until_s=until_s)
    learnt: list[tuple[float, str]] = []
    while time.monotonic() < until_s - 0.5:
        await asyncio.sleep(0.15)
        gone = NAMES[len(learnt) % len(NAMES)]
        learnt.append((time.monotonic(), gone))
        steering.take(cluster(ground.port, NAMES.replace(gone, "")))
    made = await asyncio.to_thread(ground.inside.result)
    run.cancel()
    await asyncio.wait([run])
    after = []
    for (at_s, gone), (next_s, _) in zip(learnt, [*learnt[1:], (float("inf"), "")], strict=True):
        last = [began_s - at_s for began_s, _, answer in made if answer == gone and at_s <= began_s < next_s]
        after.append(max(last, default=0.0) * 1000)
    return (
        f"{len(learnt)} endpoints removed under {len(made)} connections: the last one to a removed endpoint began "
        f"{max(after):.1f} ms (median {median(after):.1f} ms) after the agent knew"
    )


def kill(ground: Ground) -> None:
    """A whole agent, killed under load."""
    with tempfile.TemporaryDirectory() as folder:
        items = {"apiVersion": "v1", "kind": "List", "items": documents(ground.port, NAMES)}
        Path(folder, "cluster.json").write_text(json.dumps(items))
        command = [
            *(sys.executable, "-m", "agent", "run", "--node-name", "n", "--manifests", folder, "--bind", "127.0.0.1"),
            *("--pin-root", str(ground.pins.root), "--cgroup-root", str(ground.cgroup)),
            *("--port", "0", "--metrics-port", "0", "--health-port", "0"),
        ]
        agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while ground.frontend not in ground.maps.services():
                time.sleep(0.05)
            time.sleep(0.5)
            ground.inside.begin(load=[VIP, ground.port], threads=8, until_s=time.monotonic() + 7.0)
            time.sleep(1.0)
            killed_s = time.monotonic()
            agent.send_signal(signal.SIGKILL)
            made = ground.inside.result()
        finally:
            agent.kill()
            agent.wait()
    failed = sum(answer.startswith("!") for _, _, answer in made)
    steered = [began_s for began_s, _, answer in made if answer in NAMES]
    print(
        f"  {len(made)} connections, {failed} failed; the last steered one began {max(steered) - killed_s:.2f} s after "
        f"the kill, {sum(answer == 'p' for _, _, answer in made)} were untouched"
    )


def documents(port: int, names: str) -> list[dict[str, Any]]:
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "llm", "annotations": {"sonde.dev/balance-service": "direct"}},
        "spec": {"selector": {"matchLabels": {"app": "llm"}}, "targetPorts": [{"number": port}]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "direct"},
        "spec": {"clusterIP": VIP, "selector": {"app": "llm"}, "ports": [{"port": port}]},
    }
    return [pool, service, *(_pod(name) for name in names)]


def _pod(name: str) -> dict[str, Any]:
    status = {"podIP": f"127.0.1.{NAMES.index(name) + 1}", "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "llm"}}, "status": status}


def cluster(port: int, names: str) -> Cluster:
    return cluster_of([read_object(document) for document in documents(port, names)])


@contextlib.contextmanager
def beating(ground: Ground) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.2):
            ground.maps.beat(time.monotonic_ns())

    ground.maps.beat(time.monotonic_ns())
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        ground.maps.beat(0)


@contextlib.contextmanager
def prepared() -> Iterator[Ground]:
    name = f"sonde-steer-{os.getpid()}"
    pins, tree = Pins(Path("/sys/fs/bpf") / name), cgroups.root()
    inside, outside = tree / name, tree / f"{name}-outside"
    with contextlib.ExitStack() as undo:
        for cgroup in (inside, outside):
            cgroup.mkdir()
            undo.callback(remove, cgroup)
        undo.callback(loader.unload, pins)
        if loader.load(pins, inside, steer=True):
            raise SystemExit(1)
        maps = SteerMaps(pins)
        undo.callback(maps.close)
        port = undo.enter_context(served())
        clients = [undo.enter_context(client(cgroup)) for cgroup in (inside, outside)]
        yield Ground(pins, inside, maps, port, *clients)


def remove(cgroup: Path) -> None:
    for _ in range(200):  # the last process leaves a moment after it was reaped
        with contextlib.suppress(OSError):
            cgroup.rmdir()
            return
        time.sleep(0.01)


@contextlib.contextmanager
def client(cgroup: Path) -> Iterator[Client]:
    command = places.enter_command(cgroup, [sys.executable, "-m", "bench.steer_client"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield Client(process)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def served() -> Iterator[int]:
    """Each endpoint, and who stands for kube-proxy at the Service's address, says its name."""
    listeners = [socket.create_server((VIP, 0), backlog=4096)]
    port = int(listeners[0].getsockname()[1])
    listeners += [socket.create_server((f"127.0.1.{at}", port), backlog=4096) for at in range(1, len(NAMES) + 1)]
    children = []
    for name, listener in zip("p" + NAMES, listeners, strict=True):
        program = f"import socket\ns = socket.socket(fileno={listener.fileno()})\nwhile True:\n c, _ = s.accept()\n"
        program += f" try: c.send({name.encode()!r})\n except OSError: pass\n c.close()\n"
        listener.set_inheritable(True)
        children.append(subprocess.Popen([sys.executable, "-c", program], pass_fds=[listener.fileno()]))
        listener.close()
    try:
        yield port
    finally:
        for child in children:
            child.kill()
            child.wait()


PARTS: dict[str, Callable[[Ground], None]] = {
    "cost": cost, "shares": shares, "swap": swap, "removal": removal, "kill": kill,
}  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all where none is named")
    wanted = options.parse_args().parts or list(PARTS)
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        options.error(f"{unknown[0]} is none of {', '.join(PARTS)}")
    with prepared() as ground:
        for part in wanted:
            print(f"{part}:", flush=True)
            PARTS[part](ground)
            ground.maps.delete_service(ground.frontend)
    return 0


if __name__ == "__main__":
    sys.exit(main())
