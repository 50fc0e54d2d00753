"""Every query of every dashboard, alert and recording rule, asked of a real Prometheus that scrapes a running lab.

The lab is brought into each condition that a query is about: streams, aborts, refused and shed requests, engines that
hang, pods nobody measures, an accelerator (by a recorded page of Huawei's exporter). So no query may be without an
answer, and whatever is silent fails by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.exporting import metrics_server
from agent.kernel import bpfsys
from daemonset.dashboards.__main__ import ALL
from daemonset.dashboards.__main__ import FOLDER as DASHBOARDS
from lab import wire
from lab.looking.watch import samples
from lab.machine import manifests
from tests.conftest import DATA
from tests.daemonset.test_alerts import rules
from tests.gateway.prometheus import SCRAPE_S, Prometheus, scraping
from tests.gateway.test_kernel_pick import Lab
from tests.gateway.test_kernel_pick import lab as lab  # the fixture
from tests.promql import asked, metrics_of

WINDOW = "20s"  # what a rate looks back, here where scrapes come each second
LIMIT_S = 120.0
CROWD = 16  # streams to one engine: it takes 8 at once
PATIENCE_S = 10.0  # beyond half of the controller's --slo-ttft
OBJECTIVE = "inference.networking.x-k8s.io/v1alpha2"
ODD_MODELS = ('a"b\\c', "a\nb", "nul\0", "x" * 10_000, "世", '",le="0.1"} 5')

_BPF_ENABLE_STATS = 32


def panel_queries() -> Iterator[tuple[str, str]]:
    for name in ALL:
        for panel in json.loads((DASHBOARDS / f"{name}.json").read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}: {panel['title']} {target['refId']}", asked(target["expr"], WINDOW)


def rule_queries() -> Iterator[tuple[str, str]]:
    """With comparisons that answer 0 or 1 instead of nothing, and with our short window."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], compared(re.sub(r"\[\d+m\]", f"[{WINDOW}]", rule["expr"]))


def compared(expression: str) -> str:
    """Outside of braces, where the same signs are matchers."""
    parts = re.split(r"(\{[^}]*\})", expression)
    return "".join(part if part.startswith("{") else re.sub(r"([<>]=?|[=!]=)", r"\1 bool", part) for part in parts)


def test_a_comparison_is_asked_for_its_outcome() -> None:
    assert compared('a{b=~"x>y"} > 2 and c == 0') == 'a{b=~"x>y"} > bool 2 and c == bool 0'


@contextlib.contextmanager
def measured_run_times() -> Iterator[None]:
    """The kernel times programs as long as somebody holds this descriptor; nothing stays changed."""
    descriptor, _ = bpfsys._bpf(_BPF_ENABLE_STATS, struct.pack("<I", 0))
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unmeasured(lab: Lab) -> Iterator[None]:
    """A pod is in the pool that has neither agent nor engine; it is not ready, so it gets nothing."""
    ghost = manifests.LabPod("ghost", "00000000-0000-4000-8000-00000000dead", "192.0.2.1", "")
    value = manifests.pod(ghost, "nowhere", lab.ground.ports.engine)
    value["status"]["conditions"][0]["status"] = "False"
    folder = lab.stack.home.manifests
    manifests.write(folder, [value])
    try:
        yield
    finally:
        (folder / "pod-ghost.yaml").unlink()


@contextlib.asynccontextmanager
async def with_device(lab: Lab) -> AsyncIterator[None]:
    """The first pod has an NPU, and the agent is told where that one's exporter is."""
    ground = lab.ground
    page = (DATA / "devices" / "npu.txt").read_text()
    port, close = metrics_server.serve(lambda: [page], ground.node_ip, 0)
    value = manifests.pod(ground.pods[0], ground.node, ground.ports.engine)
    plain = json.loads(json.dumps(value))
    value["metadata"]["annotations"] = {"huawei.com/AscendReal": "Ascend910-0"}
    try:
        manifests.write(lab.stack.home.manifests, [value])
        await lab.restart_agent("--npu-exporter", f"http://{ground.node_ip}:{port}/metrics")
        yield
    finally:
        manifests.write(lab.stack.home.manifests, [plain])
        close()


async def pick_among_stalled(lab: Lab) -> None:
    """All engines hang, until a request had to go to one of them."""
    ground = lab.ground
    while not await has_picked(lab, "stalled"):
        async with contextlib.AsyncExitStack() as held:
            for pod in ground.pods:
                await held.enter_async_context(lab.open_streams(1, pod.ip, ground.ports.engine))
            for pod in ground.pods:
                await wire.turn_knobs(pod.ip, ground.ports.control, hang_s=8.0)
            await lab.until(lambda table: all(row.stalled for row in table))
            async with streams(ground.node_ip, ground.ports.sonde, 4):
                await asyncio.sleep(1)


async def level(lab: Lab) -> float:
    """What this kernel lets be measured."""
    page = (await wire.get(lab.ground.node_ip, lab.ground.ports.agent_metrics, "/metrics")).decode()
    return next(sample.value for sample in samples(page) if sample.name == "sonde_agent_measurement_level")


async def has_picked(lab: Lab, reason: str) -> bool:
    page = (await wire.get(lab.ground.node_ip, lab.ground.ports.metrics, "/metrics")).decode()
    picks = [sample for sample in samples(page) if sample.name == "sonde_controller_picks_total"]
    return any(sample.labels["reason"] == reason for sample in picks)


@contextlib.asynccontextmanager
async def without_room(lab: Lab) -> AsyncIterator[None]:
    """Every engine has more requests than it takes at once; they are all aborted at the end."""
    async with contextlib.AsyncExitStack() as held:
        for pod in lab.ground.pods:
            await held.enter_async_context(streams(pod.ip, lab.ground.ports.engine, CROWD))
        yield


@contextlib.asynccontextmanager
async def streams(host: str, port: int, count: int) -> AsyncIterator[None]:
    """Streams that are asked for and not read, cut off at the end."""
    async with contextlib.AsyncExitStack() as held:
        for _ in range(count):
            _, writer = await asyncio.open_connection(host, port)
            held.callback(writer.close)
            writer.write(stream_request())
        yield


def stream_request(headers: str = "") -> bytes:
    body = json.dumps({"model": "lab", "prompt": "hello", "max_tokens": 2000, "stream": True}).encode()
    return f"POST /v1/completions HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def is_shed(lab: Lab) -> bool:
    """Whether a request of the sheddable class is turned away, which it is after it waited for room."""
    reader, writer = await asyncio.open_connection(lab.ground.node_ip, lab.ground.ports.sonde)
    try:
        writer.write(stream_request("x-gateway-inference-objective: batch\r\n"))
        async with asyncio.timeout(PATIENCE_S):
            return b" 429 " in await reader.readline()
    except TimeoutError:
        return False
    finally:
        writer.close()


async def shed(lab: Lab) -> None:
    """Until a request of a sheddable class is turned away."""
    spec = {"poolRef": {"name": manifests.POOL}, "priority": -1}
    objective = {"apiVersion": OBJECTIVE, "kind": "InferenceObjective", "metadata": {"name": "batch"}, "spec": spec}
    manifests.write(lab.stack.home.manifests, [objective])
    async with without_room(lab):
        while not await is_shed(lab):
            await asyncio.sleep(0.1)


async def unreadable(lab: Lab) -> None:
    """Turns on an opaque connection, by a method that the engine takes and nobody knows; and some HTTP/2.

    Two requests are asked for at once, so that there is a gap between two segments of what comes back.
    """
    pod, port = lab.ground.pods[0], lab.ground.ports.engine
    reader, writer = await asyncio.open_connection(pod.ip, port)
    for number in range(6):
        if number % 2 == 0:
            writer.write(2 * (b"FETCH /metrics HTTP/1.1\r\nhost: x\r\nx-padding: %s\r\n\r\n" % (b"x" * 200)))
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    writer.close()
    _, writer = await asyncio.open_connection(pod.ip, port)
    settings, goaway = b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x07\0\0\0\0\0" + b"\0" * 8
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + goaway)
    await writer.drain()
    writer.close()


async def traffic(lab: Lab) -> None:
    """Whole answers, streams cut off in the middle, models of any name, and requests that are none; without an end."""
    ground = lab.ground
    while True:
        await lab.ask(8)
        for model in ODD_MODELS:
            await lab.post(json.dumps({"model": model, "prompt": "hello", "max_tokens": 2}).encode())
        await lab.post(b"{")
        await unreadable(lab)
        async with streams(ground.node_ip, ground.ports.sonde, 8):
            await asyncio.sleep(0.5)


async def all_answered(prometheus: Prometheus, queries: dict[str, str]) -> None:
    """Asks until each has been answered sanely; those that were not are in the assertion's text."""
    silent = dict(queries)
    try:
        async with asyncio.timeout(LIMIT_S):
            while silent:
                for name, query in list(silent.items()):
                    values = await prometheus.values(query)
                    assert all(math.isfinite(value) and value >= 0 for value in values), (name, query, values)
                    if values:
                        del silent[name]
                await asyncio.sleep(SCRAPE_S)
    except TimeoutError:
        pass
    assert not silent


async def healthy(prometheus: Prometheus) -> None:
    targets = (await prometheus.get("targets"))["activeTargets"]
    assert {(target["labels"]["job"], target["health"], target["lastError"]) for target in targets} == {
        ("sonde-agent", "up", ""),
        ("sonde-controller", "up", ""),
    }
    of_groups = [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in of_groups if rule["health"] != "ok"} == {}


@pytest.mark.timeout(300)
def test_every_query_is_answered_and_names_what_is_exported(lab: Lab, tmp_path: Path) -> None:
    queries = dict([*panel_queries(), *rule_queries()])

    async def body() -> None:
        if await level(lab) < 2:  # then nobody sees how long bytes lie unread
            for name in [name for name, query in queries.items() if "read_delay" in query]:
                del queries[name]
        async with with_device(lab):
            with measured_run_times(), unmeasured(lab):
                await under_prometheus()

    async def under_prometheus() -> None:
        async with scraping(lab.ground, tmp_path / "prometheus", lab.stack.home.logs) as prometheus:
            asking = asyncio.create_task(all_answered(prometheus, queries))
            try:
                await pick_among_stalled(lab)
                await shed(lab)
                users = asyncio.create_task(traffic(lab))
                await asyncio.wait({asking, users}, return_when=asyncio.FIRST_COMPLETED)
                assert not users.done(), users.exception()
                users.cancel()
                await asking
            finally:
                asking.cancel()
            await healthy(prometheus)
            named = {name for query in queries.values() for name in metrics_of(query)}
            assert named - await prometheus.names() == set()

    lab.run(body(), 2 * LIMIT_S)
