"""`sonde-agent run` on real programs: pods as kubelet would make their cgroups, a server in each, manifests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from prometheus_client.parser import text_string_to_metric_families

from agent.proto.telemetry_pb2 import EndpointReport, Frame, WatchRequest
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from lab.machine import cgroups
from tests.kernel.live import SERVER, Node, free_port, remove_cgroup

NODE = "node-a"
LIMIT_S = 30
_RUNNING = re.compile(r"running .* port=(\d+) metrics_port=(\d+)")


@dataclass
class Pod:
    """A pod whose container listens on a port of 127.0.0.1."""

    name: str
    port: int
    uid: str
    cgroup: Path
    process: subprocess.Popen[str] | None = None
    annotations: dict[str, str] = field(default_factory=dict)

    def serve(self) -> None:
        """Starts the server inside the pod's cgroup, which is made where it is not there yet."""
        self.cgroup.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            cgroups.enter_command(self.cgroup, [sys.executable, str(SERVER), "127.0.0.1", str(self.port)]),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        # closing resets, so that a server which never answers hears of it
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return connection

    def manifest(self) -> dict[str, object]:
        named = {"name": self.name, "namespace": "default", "uid": self.uid, "labels": {"app": self.name}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": named | {"annotations": self.annotations},
            "spec": {"nodeName": NODE},
            "status": {"podIP": "127.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def pool(self) -> dict[str, object]:
        return {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": self.name}},
                "targetPorts": [{"number": self.port}],
                "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
            },
        }


@dataclass
class Ground:
    """One loaded cgroup tree, one folder of manifests, and the agents started on them."""

    node: Node
    manifests: Path
    pods: list[Pod] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)

    def pod(self, name: str, static: bool = False) -> Pod:
        """A pod that is neither listed nor running yet. A static one's manifest will be that of its mirror."""
        uid = str(uuid.uuid4())
        called = uuid.uuid4().hex if static else uid
        slice_name = f"kubepods-burstable-pod{called.replace('-', '_')}.slice"
        scope = self.node.cgroup / "kubepods.slice" / slice_name / f"cri-containerd-{'c' * 64}.scope"
        made = Pod(name, free_port("127.0.0.1"), uid, scope)
        if static:
            made.annotations = {f"kubernetes.io/config.{what}": called for what in ("hash", "mirror")}
        self.pods.append(made)
        return made

    def list(self, pod: Pod) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": [pod.manifest(), pod.pool()]}
        part = self.manifests / f"{pod.name}.part"
        part.write_text(json.dumps(items))
        part.rename(self.manifests / f"{pod.name}.json")

    def unlist(self, pod: Pod) -> None:
        (self.manifests / f"{pod.name}.json").unlink()

    def serving_pod(self, name: str) -> Pod:
        pod = self.pod(name)
        pod.serve()
        self.list(pod)
        return pod

    def command(self, *flags: str) -> list[str]:
        return [
            *(sys.executable, "-m", "agent", "run", "--node-name", NODE, "--manifests", str(self.manifests)),
            *("--cgroup-root", str(self.node.cgroup), "--pin-root", str(self.node.pins.root)),
            *("--bind", "127.0.0.1", "--port", "0", "--metrics-port", "0", *flags),
        ]

    def agent(self, *flags: str) -> Agent:
        """A running agent that has started to listen."""
        process = subprocess.Popen(self.command(*flags), stderr=subprocess.PIPE, text=True)
        agent = Agent(process)
        self.agents.append(agent)
        agent.wait_until_running()
        return agent

    def clear(self) -> None:
        """Ends what a test left running."""
        for agent in self.agents:
            agent.kill()
        for pod in self.pods:
            if pod.process is not None:
                pod.process.kill()
                pod.process.wait()
                assert pod.process.stdout is not None
                pod.process.stdout.close()
        for folder, _, _ in os.walk(self.node.cgroup, topdown=False):
            if Path(folder) != self.node.cgroup:
                remove_cgroup(Path(folder))


class Agent:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self.port = self.metrics_port = 0

    def wait_until_running(self) -> None:
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            self.said += line
            if found := _RUNNING.search(line):
                self.port, self.metrics_port = int(found[1]), int(found[2])
                return
        raise AssertionError(f"the agent ended with {self.process.wait()}: {self.said}")

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watch]:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = TelemetryStub(channel).Watch(WatchRequest(subscriber="test"), timeout=LIMIT_S)
            yield Watch(call)
            call.cancel()

    def metrics(self) -> dict[tuple[str, ...], float]:
        """(name, label values in the order of label names) -> value"""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=LIMIT_S) as answer:
            page = answer.read().decode()
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def wait_end(self) -> int:
        """The exit status; what was said until then is in `said`."""
        _, rest = self.process.communicate(timeout=LIMIT_S)
        self.said += rest
        return self.process.returncode

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.wait_end()


class Watch:
    """One stream, frame by frame."""

    def __init__(self, call) -> None:
        self.call = call

    def frame(self) -> Frame:
        return next(self.call)

    def rest(self) -> list[Frame]:
        """All frames until the stream ends in order."""
        return list(self.call)

    def until(self, condition: Callable[[dict[str, EndpointReport]], bool]) -> Frame:
        """The first frame whose reports, by pod, are as wanted. The stream's time limit ends the wait."""
        seen = []
        try:
            for frame in self.call:
                reports = {report.pod: report for report in frame.endpoints}
                if condition(reports):
                    return frame
                seen.append(frame)
        except grpc.RpcError as error:
            raise AssertionError(f"{error.code()} after {seen[-3:]}") from error
        raise AssertionError(f"the stream ended after {seen[-3:]}")


def wait_until(condition: Callable[[], bool], within_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextlib.contextmanager
def ground(node: Node, folder: Path) -> Iterator[Ground]:
    manifests = folder / "manifests"
    manifests.mkdir()
    made = Ground(node, manifests)
    try:
        yield made
    finally:
        made.clear()
        shutil.rmtree(manifests)
