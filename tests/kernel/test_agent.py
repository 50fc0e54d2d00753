"""`sonde-agent run` as a process: pods in cgroups of kubelet's shape, real requests, the stream and the page."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.kernel import bpfsys, pins
from agent.proto.telemetry_pb2 import EndpointReport, Frame, WatchRequest
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from lab.machine import cgroups, manifests
from lab.machine.manifests import LabPod
from tests.kernel.conversation import Bench
from tests.kernel.live import SERVER, Node, free_port, post, read_answer, remove_cgroup, running_node

NODE = "n1"
LIMIT_S = 30.0
SILENT = post("/v1/silent")


@dataclass(slots=True)
class Agent:
    """One agent process over one node's programs, and the pods of that node."""

    node: Node
    folder: Path
    port: int
    serving_port: int
    metrics_port: int
    process: subprocess.Popen[str] | None = None
    cgroups: list[Path] = field(default_factory=list)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "agent", "run", "--node-name", NODE, "--manifests", str(self.folder)),
                *("--cgroup-root", str(self.node.cgroup), "--pin-root", str(self.node.pins.root)),
                *("--bind", "127.0.0.1", "--port", str(self.port), "--metrics-port", str(self.metrics_port)),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Returns exit status and what it logged."""
        assert self.process is not None
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, said

    def pod(self, number: int, cgroup: bool = True, serves: bool = True) -> LabPod:
        """A pod with its manifest, its cgroups and a server in them."""
        pod = LabPod(f"pod-{number}", f"00000000-0000-4000-8000-{number:012}", f"127.0.3.{number}", f"{number:064x}")
        if cgroup:
            self.make_cgroup(pod)
        if serves and cgroup:
            self.serve(pod)
        manifests.write(self.folder, [manifests.pool(self.serving_port), manifests.pod(pod, NODE, self.serving_port)])
        return pod

    def scope(self, pod: LabPod) -> Path:
        slice_ = f"kubepods-pod{pod.uid.replace('-', '_')}.slice"
        return self.node.cgroup / "kubepods.slice" / slice_ / f"cri-containerd-{pod.container_id}.scope"

    def make_cgroup(self, pod: LabPod) -> None:
        scope = self.scope(pod)
        scope.mkdir(parents=True)
        self.cgroups += [scope, scope.parent]

    def serve(self, pod: LabPod) -> None:
        scope = self.scope(pod)
        process = subprocess.Popen(
            cgroups.enter_command(scope, [sys.executable, str(SERVER), pod.ip, str(self.serving_port)]),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.node.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def drop(self, pod: LabPod) -> None:
        (self.folder / f"pod-{pod.name}.yaml").unlink()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Iterator[Frame]]:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            grpc.channel_ready_future(channel).result(LIMIT_S)
            call = TelemetryStub(channel).Watch(WatchRequest(subscriber="test"), timeout=LIMIT_S * 2)
            try:
                yield call
            finally:
                call.cancel()

    def until(self, holds: Callable[[dict[str, EndpointReport]], Any]) -> dict[str, EndpointReport]:
        """Follows a stream until what is known of the endpoints satisfies; returns that."""
        with self.watching() as frames:
            known: dict[str, EndpointReport] = {}
            for frame in frames:
                known = ({} if frame.full else known) | {report.pod: report for report in frame.endpoints}
                if holds(known):
                    return known
        raise AssertionError(f"the stream ended before: {known}")

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=LIMIT_S) as response:
            return response.read().decode()

    def open_request(self, pod: LabPod) -> socket.socket:
        """A connection with a request that never gets an answer."""
        connection = socket.create_connection((pod.ip, self.serving_port), timeout=LIMIT_S)
        connection.sendall(SILENT)
        return connection

    def disown(self) -> None:
        """The next agent finds slots that are nobody's."""
        descriptor = pins.open_map(self.node.pins, "owners")
        for key in bpfsys.map_keys(descriptor, 16):
            bpfsys.map_delete(descriptor, key)
        os.close(descriptor)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.node.end_processes()
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)
        with contextlib.suppress(FileNotFoundError):
            remove_cgroup(self.node.cgroup / "kubepods.slice")
        self.disown()


@pytest.fixture(scope="module")
def node(bench: Bench) -> Iterator[Node]:
    with running_node("agent") as node:
        yield node


@pytest.fixture
def agent(node: Node, tmp_path: Path) -> Iterator[Agent]:
    """On a node where nothing is left of the test before: no process, no cgroup, no owner of a slot."""
    ports = [free_port("127.0.0.1") for _ in range(2)]
    one = Agent(node, tmp_path, ports[0], free_port("0.0.0.0"), ports[1])
    try:
        yield one
    finally:
        one.close()


def in_flight(known: dict[str, EndpointReport], pod: str) -> int | None:
    report = known.get(pod)
    return report.kernel.in_flight if report is not None and report.HasField("kernel") else None


def test_requests_show_in_the_stream_and_on_the_page(agent: Agent) -> None:
    pod = agent.pod(1)
    agent.start()
    agent.until(lambda known: in_flight(known, "pod-1") == 0)
    with agent.open_request(pod) as connection:
        known = agent.until(lambda known: in_flight(known, "pod-1") == 1)
        assert known["pod-1"].kernel.waiting == 1
        assert 'sonde_pod_requests_in_flight{namespace="default",pod="pod-1"} 1\n' in agent.page()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a RST
    known = agent.until(lambda known: in_flight(known, "pod-1") == 0)
    assert (known["pod-1"].kernel.started, known["pod-1"].kernel.client_aborted) == (1, 1)


def test_a_change_is_sent_at_once_not_with_the_next_beat(agent: Agent) -> None:
    pod = agent.pod(1)
    agent.start()
    agent.until(lambda known: in_flight(known, "pod-1") == 0)
    first_seen = []
    with agent.watching() as frames, contextlib.ExitStack() as held:
        assert next(frames).full
        for number in range(1, 6):
            held.enter_context(agent.open_request(pod))
            counts = (frame for frame in frames if [one.kernel.in_flight for one in frame.endpoints] == [number])
            first_seen.append(next(counts))
    assert not all(frame.full for frame in first_seen)  # one or the other may meet a beat by chance


def test_pods_come_and_go(agent: Agent) -> None:
    agent.pod(1)
    agent.start()
    agent.until(lambda known: set(known) == {"pod-1"})
    second = agent.pod(2)
    agent.until(lambda known: in_flight(known, "pod-2") == 0)
    agent.drop(second)
    agent.until(lambda known: set(known) == {"pod-1"})
    assert 'pod="pod-2"' not in agent.page()


def test_a_pod_without_cgroup_is_unknown_until_it_has_one(agent: Agent) -> None:
    pod = agent.pod(1, cgroup=False)
    agent.start()
    known = agent.until(lambda known: "pod-1" in known)
    assert not known["pod-1"].HasField("kernel")
    time.sleep(1.5)  # long enough to be said
    agent.make_cgroup(pod)
    agent.until(lambda known: in_flight(known, "pod-1") == 0)
    _, said = agent.stop()
    assert said.count("pod is not measured in the kernel") == 1


def test_an_agent_that_is_killed_loses_no_count_and_attaches_nothing(agent: Agent) -> None:
    pod = agent.pod(1)
    agent.start()
    agent.until(lambda known: in_flight(known, "pod-1") == 0)
    programs = agent.node.hook_programs()
    with agent.open_request(pod):
        agent.until(lambda known: in_flight(known, "pod-1") == 1)
        agent.stop(signal.SIGKILL)
        with agent.open_request(pod):
            agent.start()
            known = agent.until(lambda known: in_flight(known, "pod-1") == 2)
            assert known["pod-1"].kernel.started == 2
    assert agent.node.hook_programs() == programs


def test_a_slot_goes_to_another_pod_only_when_old_connections_are_closed(agent: Agent) -> None:
    first = agent.pod(1)
    agent.start()
    agent.until(lambda known: in_flight(known, "pod-1") == 0)
    with agent.open_request(first):
        agent.until(lambda known: in_flight(known, "pod-1") == 1)
        of_first = {slot for _, slot in owners(agent.node)}
        agent.drop(first)
        agent.until(lambda known: not known)
        second = agent.pod(2)
        known = agent.until(lambda known: in_flight(known, "pod-2") == 0)
        assert known["pod-2"].kernel.started == 0
        # the first one's slot still counts what is left of it
        assert {slot for _, slot in owners(agent.node)} - of_first
    with agent.open_request(second):
        known = agent.until(lambda known: in_flight(known, "pod-2") == 1)
        assert known["pod-2"].kernel.started == 1


def owners(node: Node) -> list[tuple[int, int]]:
    """(generation, slot) of every key."""
    descriptor = pins.open_map(node.pins, "owners")
    try:
        values = [bpfsys.map_lookup(descriptor, key, 16) or b"" for key in bpfsys.map_keys(descriptor, 16)]
    finally:
        os.close(descriptor)
    return [(int.from_bytes(value[:8], "little"), int.from_bytes(value[8:12], "little")) for value in values]


def test_health_checks_are_not_requests(agent: Agent) -> None:
    pod = agent.pod(1)
    agent.start()
    agent.until(lambda known: in_flight(known, "pod-1") == 0)
    with socket.create_connection((pod.ip, agent.serving_port), timeout=LIMIT_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        read_answer(connection)
        connection.sendall(post("/v1/plain?size=10"))
        read_answer(connection)
    known = agent.until(lambda known: known["pod-1"].kernel.completed == 1)
    assert known["pod-1"].kernel.started == 1


def test_sigterm_ends_streams_in_order_and_leaves_the_pins(agent: Agent) -> None:
    agent.pod(1)
    agent.start()
    with agent.watching() as frames:
        next(frames)
        status, said = agent.stop()
        assert status == 0
        assert list(frames) is not None  # no error: the stream was ended, not cut
    assert "stopped" in said
    assert owners(agent.node)


def test_without_programs_it_says_what_to_do(bench: Bench, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "agent", "run", "--bind", "127.0.0.1", "--manifests", str(tmp_path)),
            *("--pin-root", "/sys/fs/bpf/sonde-nowhere"),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "sonde-agent load" in done.stderr
    assert "Traceback" not in done.stderr
