"""`sonde-controller` as a process: what it answers, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from controller.gateway import extproc, tls
from controller.gateway.modes import BUFFERED, NONE
from lab import wire
from lab.looking.watch import samples
from lab.machine import manifests
from lab.machine.manifests import LabPod
from tests.conftest import run
from tests.controller import messages as m

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ["", "readiness", "inference-extension", extproc.SERVICE]
# a port that does not listen yet is tried again soon; by default it would be after a second and more
SOON = [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    process: asyncio.subprocess.Process
    port: int
    health_port: int
    metrics_port: int

    async def health(self, name: str, port: int | None = None) -> int:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port or self.health_port}", SOON) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True)
            return answer.status

    async def until(self, name: str, status: int) -> None:
        while await self.health(name) != status:
            await asyncio.sleep(0.02)

    async def sampled(self, name: str, count: int) -> None:
        """Waits until the metrics page has so many samples of a name."""
        while True:
            page = (await wire.get("127.0.0.1", self.metrics_port, "/metrics")).decode()
            if sum(sample.name == name for sample in samples(page)) == count:
                return
            await asyncio.sleep(0.05)

    async def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, said = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()


def write(folder: Path, pods: int) -> None:
    specs = [LabPod(f"pod-{n}", f"00000000-0000-4000-8000-{n:012}", f"127.0.4.{n}", "") for n in range(1, pods + 1)]
    manifests.write(folder, [manifests.pool(8000), *(manifests.pod(spec, "n", 8000) for spec in specs)])


@asynccontextmanager
async def controller(folder: Path, *more: str) -> AsyncIterator[Running]:
    ports = [free_port() for _ in range(3)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller", "--pool-name", manifests.POOL, "--manifests", str(folder)),
        *("--bind", "127.0.0.1", "--secure-serving=false", "--grpc-port", str(ports[0])),
        *("--grpc-health-port", str(ports[1]), "--metrics-port", str(ports[2])),
        "--drain-delay=0s",
        *more,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Running(process, *ports)
    try:
        await running.health("liveness")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def asked(port: int, *sent: bytes, answers: int) -> list[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(f"/{extproc.SERVICE}/Process")()
        for message in sent:
            await call.write(message)
        return [m.read(await call.read()) for _ in range(answers)]


def test_it_is_alive_at_once_and_ready_when_the_pool_is_known(tmp_path: Path) -> None:
    async def body() -> None:
        async with controller(tmp_path) as running:
            assert await running.health("liveness") == SERVING
            assert {await running.health(name) for name in NAMES} == {NOT_SERVING}
            write(tmp_path, pods=1)
            await running.until("readiness", SERVING)
            assert {await running.health(name) for name in NAMES} == {SERVING}
            assert await running.health(extproc.SERVICE, running.port) == SERVING  # gateways ask there

    run(body())


def test_without_agents_it_picks_by_its_own_counts(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=2)
        async with controller(tmp_path, "--seed", "1") as running:
            await running.until("readiness", SERVING)
            picks = []
            for _ in range(6):
                _, answer = await asked(running.port, m.headers(BUFFERED), m.body(), answers=2)
                assert m.header_pick(answer) == m.metadata_pick(answer)
                picks.append(m.header_pick(answer))
            assert set(picks) == {"127.0.4.1:8000", "127.0.4.2:8000"}

    run(body())


def test_without_endpoints_the_answer_is_503(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=0)
        async with controller(tmp_path) as running:
            await running.until("readiness", SERVING)
            _, answer = await asked(running.port, m.headers(BUFFERED), m.body(), answers=2)
            assert answer.immediate_response.status.code == 503

    run(body())


def test_sigterm_lets_open_exchanges_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=1)
        async with controller(tmp_path) as running:
            await running.until("readiness", SERVING)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                call = channel.stream_stream(f"/{extproc.SERVICE}/Process")()
                await call.write(m.headers(BUFFERED))
                await call.read()
                ending = asyncio.create_task(running.end())
                await running.until("readiness", NOT_SERVING)
                await call.write(m.body())
                assert m.header_pick(m.read(await call.read())) == "127.0.4.1:8000"
                assert await call.read() is grpc.aio.EOF
                status, said = await ending
            assert status == 0
            assert "Traceback" not in said

    run(body())


def test_while_gateways_notice_new_requests_are_still_served(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=1)
        async with controller(tmp_path, "--drain-delay=60s") as running:
            await running.until("readiness", SERVING)
            running.process.send_signal(signal.SIGTERM)
            await running.until("readiness", NOT_SERVING)
            assert await running.health("liveness") == SERVING
            _, answer = await asked(running.port, m.headers(BUFFERED), m.body(), answers=2)
            assert m.header_pick(answer) == "127.0.4.1:8000"
            status, said = await running.end()  # a second signal ends at once
            assert status == 0
            assert "ending at once" in said
            assert "Traceback" not in said

    run(body())


def test_a_second_signal_ends_what_does_not_end(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=1)
        async with controller(tmp_path, "--drain-timeout=60s") as running:
            await running.until("readiness", SERVING)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                call = channel.stream_stream(f"/{extproc.SERVICE}/Process")()
                await call.write(m.headers(BUFFERED))
                await call.read()  # and its body never comes
                running.process.send_signal(signal.SIGTERM)
                await running.until("readiness", NOT_SERVING)
                assert (await running.end())[0] == 0

    run(body())


def test_without_a_pool_every_request_gets_503_and_the_log_says_why(tmp_path: Path) -> None:
    async def body() -> None:
        async with controller(tmp_path) as running:
            _, answer = await asked(running.port, m.headers(BUFFERED), m.body(), answers=2)
            assert answer.immediate_response.status.code == 503
            status, said = await running.end()
            assert status == 0
            assert f"pool default/{manifests.POOL} of inference.networking.k8s.io: is not there" in said

    run(body())


def test_a_change_of_the_cluster_does_not_make_it_ready_while_it_drains(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=1)
        async with controller(tmp_path) as running:
            await running.until("readiness", SERVING)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                call = channel.stream_stream(f"/{extproc.SERVICE}/Process")()
                await call.write(m.headers(BUFFERED))
                await call.read()
                ending = asyncio.create_task(running.end())
                await running.until("readiness", NOT_SERVING)
                write(tmp_path, pods=3)
                await running.sampled("sonde_controller_endpoint_ready", 3)
                assert {await running.health(name) for name in NAMES} == {NOT_SERVING}
                assert await running.health("liveness") == SERVING
                await call.write(m.body())
                assert m.header_pick(m.read(await call.read())) is not None
            assert (await ending)[0] == 0

    run(body())


def test_its_page_is_text_that_prometheus_reads(tmp_path: Path) -> None:
    async def body() -> None:
        write(tmp_path, pods=2)
        async with controller(tmp_path) as running:
            await running.until("readiness", SERVING)
            await asked(running.port, m.headers(BUFFERED), m.body(), answers=2)
            page = await wire.get("127.0.0.1", running.metrics_port, "/metrics")
            families = {family.name: family for family in text_string_to_metric_families(page.decode())}
            assert {"inference_pool_ready_pods", "process_cpu_seconds"} <= families.keys()
            assert all(family.documentation and family.type != "unknown" for family in families.values())
            (requests,) = (s for s in families["inference_objective_request"].samples if s.name.endswith("_total"))
            assert (requests.labels["model_name"], requests.value) == ("m", 1)

    run(body())


def test_a_faulty_certificate_is_one_line_and_status_1(tmp_path: Path) -> None:
    for name in (tls.CERTIFICATE, tls.KEY):
        (tmp_path / name).write_text("nonsense")
    command = [sys.executable, "-m", "controller", "--pool-name", "p", "--manifests", str(tmp_path)]
    done = subprocess.run(
        [*command, "--bind", "127.0.0.1", "--cert-path", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "tls.key: no PEM private key" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", ["--grpc-port", "--grpc-health-port", "--metrics-port"])
def test_a_port_that_is_taken_is_one_line_and_status_1(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        others = [f"{other}=0" for other in ("--grpc-port", "--grpc-health-port", "--metrics-port") if other != flag]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "controller", "--pool-name", "p", "--manifests", str(tmp_path)),
                *("--bind", "127.0.0.1", f"{flag}={port}", *others),
            ],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port} for " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_each_policy_by_its_name_picks_and_explains_if_asked(tmp_path: Path) -> None:
    async def body(policy: str) -> None:
        async with controller(tmp_path, "--policy", policy, "--explain-sample", "1") as running:
            await running.until("readiness", SERVING)
            (answer,) = await asked(running.port, m.headers(NONE), answers=1)
            told = json.loads(await wire.get("127.0.0.1", running.metrics_port, "/debug/explain"))
            assert [pick["chosen"] for pick in told] == [m.header_pick(answer)]
            status, said = await running.end()
            assert (status, said.count(" pick {")) == (0, 1)

    write(tmp_path, pods=3)
    for policy in ("sonde", "least-request"):
        run(body(policy))
