"""A controller as a process that serves weights."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agent.proto.weights_pb2 import WeightsRequest
from agent.proto.weights_pb2_grpc import WeightsStub
from lab import wire
from lab.looking.watch import samples
from tests.conftest import run
from tests.controller.test_daemon import controller, free_port, write


def test_without_agents_weights_are_equal_and_streams_end_in_order_with_the_controller(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=2)
        port = free_port()
        async with controller(tmp_path, "--weights-port", str(port)) as running:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stream = WeightsStub(channel).Watch(WeightsRequest(node="n"), timeout=30)
                told = await stream.read()
                assert [(one.pod, one.weight, one.HasField("price_s")) for one in told.endpoints] == [
                    ("pod-1", 1.0, False),
                    ("pod-2", 1.0, False),
                ]
                page = samples((await wire.get("127.0.0.1", running.metrics_port, "/metrics")).decode())
                values = {sample.name: sample.value for sample in page}
                assert values["sonde_controller_weight_watchers"] == 1
                assert values["sonde_controller_endpoint_weight"] == 1
                assert values["sonde_controller_weight_changes_total"] == 1
                state = json.loads(await wire.get("127.0.0.1", running.metrics_port, "/state"))
                assert [one["weight"] for one in state["pods"]] == [1.0, 1.0]
                (tmp_path / "pod-pod-2.yaml").unlink()
                while len(told.endpoints) != 1:
                    told = await stream.read()
                status, said = await running.end()
                while await stream.read() is not grpc.aio.EOF:
                    pass
                assert await stream.code() is grpc.StatusCode.OK
            assert status == 0
            assert "Traceback" not in said

    run(body())


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("0.0.0.0", "--weights-port with --bind 0.0.0.0 needs --agent-tls-path DIR, or --agent-plain-text"),
        ("127.0.0.1", "cannot listen at 127.0.0.1:{port} for weights"),
    ],
)
def test_what_keeps_it_from_serving_weights_is_one_line(tmp_path: Path, bind: str, said: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = ended_with(tmp_path, "--bind", bind, "--weights-port", str(port))
    assert said.format(port=port) in line


def ended_with(folder: Path, *more: str) -> str:
    """The last line of a controller that does not start."""
    command = [sys.executable, "-m", "controller", "--pool-name", "p", "--manifests", str(folder)]
    ports = [f"--{name}=0" for name in ("grpc-port", "grpc-health-port", "metrics-port")]
    done = subprocess.run([*command, *ports, *more], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]
