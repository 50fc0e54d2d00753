"""Steering as the overlay `steer` installs it: two nodes, an API server, mutual TLS, names by a resolver.

Needs root and BPF. Nothing stands for kube-proxy here: the client's namespace has no way to the Service's address, so
that a connection that is not steered fails at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.cluster.objects import BALANCE_SERVICE
from lab.looking.watch import Sample
from lab.machine import network
from tests.conftest import run
from tests.gateway.nodes import ENGINE_PORT, Node, Site, cluster_ground, controller_command
from tests.gateway.test_steer import CALLER, page_of, pods_of, shares, value
from tests.kube import endpoint_slice, pool, service

OVERLAY = "overlays/steer"
NODES = 2
PODS, CLIENT = range(2, 5), 5  # network namespaces; 0 and 1 are the agents'
ADDRESS = ("10.96.0.20", 80)
VALUES = {"POOL_NAME": "llm", "POOL_NAMESPACE": "default", "POOL_GROUP": "inference.networking.k8s.io"}
ENOUGH = 30


@pytest.fixture
def site() -> Iterator[Site]:
    with cluster_ground(f"sonde-c{os.getpid()}", CLIENT + 1) as site:
        (site.folder / "hosts").write_text(f"{network.NODE_ADDRESS} sonde-controller-weights.default.svc\n")
        yield site


@asynccontextmanager
async def installed(site: Site) -> AsyncIterator[list[Node]]:
    site.apply(OVERLAY)
    site.keep_certificates()
    nodes = [Node(site, f"node-{index}", index, OVERLAY) for index in range(NODES)]
    named = pool(ports=(ENGINE_PORT,))
    named["metadata"]["annotations"] = {BALANCE_SERVICE: "llm-direct"}
    site.server.put(service("llm-direct", *ADDRESS, ENGINE_PORT))
    site.server.put(named)
    try:
        for node in nodes:
            node.boot()
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(node.start_agent())
        async with asyncio.TaskGroup() as group:
            for index in PODS:
                group.create_task(nodes[index % NODES].start_pod(f"pod-{index}", index, app="llm"))
        tell_ready(site)
        await site.start("controller", controller_command(site, VALUES, OVERLAY))
        yield nodes
    finally:
        await site.stop()
        for node in nodes:
            node.halt()


def tell_ready(site: Site, unready: str = "") -> None:
    pods = {f"pod-{index}": (network.pod_address(index), f"pod-{index}" != unready) for index in PODS}
    site.server.put(endpoint_slice("llm-direct", ENGINE_PORT, pods))


async def until(node: Node, holds: Callable[[list[Sample]], bool]) -> None:
    while not holds(await page_of(node.ip, 9432)):
        await asyncio.sleep(0.1)


def calls(site: Site, since_s: float) -> list[dict[str, Any]]:
    lines = (site.logs / "client.log").read_text().splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return [call for call in told if call["at_s"] >= since_s]


async def called(site: Site, since_s: float) -> list[dict[str, Any]]:
    while len(calls(site, since_s)) < ENOUGH:
        await asyncio.sleep(0.1)
    return calls(site, since_s)


@pytest.mark.timeout(240)
def test_the_overlay_steers_a_client_as_its_objects_say(site: Site) -> None:
    async def body() -> None:
        async with installed(site) as nodes:
            last = nodes[-1]
            await until(last, lambda page: value(page, "sonde_steer_source", source="controller") == [1.0])
            client = await last.start_client("client", CLIENT, [sys.executable, str(CALLER), *map(str, ADDRESS)])
            everybody = {f"pod-{index}" for index in PODS}
            assert pods_of(await called(site, 0.0)).keys() == everybody

            tell_ready(site, unready="pod-2")
            await until(last, lambda page: shares(page).get("pod-2", 0.0) == 0.0)
            assert pods_of(await called(site, time.monotonic())).keys() == everybody - {"pod-2"}

            client["metadata"]["labels"]["sonde.dev/balance"] = "off"
            site.server.put(client)
            while any("pod" in call for call in await called(site, time.monotonic())):
                await asyncio.sleep(0.1)
            del client["metadata"]["labels"]["sonde.dev/balance"]
            site.server.put(client)
            while any("pod" not in call for call in await called(site, time.monotonic())):
                await asyncio.sleep(0.1)

    run(body(), 220, debug=False)
