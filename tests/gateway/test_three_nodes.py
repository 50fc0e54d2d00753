"""The whole install on three nodes: from `kubectl apply -k` to its end, under requests. Needs root, BPF and Envoy."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from lab import wire
from lab.looking.watch import samples
from lab.machine import envoy, network, processes
from tests.conftest import run
from tests.daemonset.rendered import one
from tests.gateway.nodes import ENGINE_PORT, Node, Site, cluster_ground, controller_command
from tests.gateway.site import envoy_binary, post
from tests.kube import pool

PODS = range(3, 9)  # network namespaces 0 to 2 are the agents'
SECOND = 9  # the other controller's; the first is in the node's
GATEWAY_PORT = 8080
VALUES = {"POOL_NAME": "llm", "POOL_NAMESPACE": "default", "POOL_GROUP": "inference.networking.k8s.io"}


@pytest.fixture
def site() -> Iterator[Site]:
    envoy_binary()
    with cluster_ground(f"sonde-t{os.getpid()}", SECOND + 1) as site:
        yield site


class Cluster:
    def __init__(self, site: Site, nodes: list[Node]) -> None:
        self.site = site
        self.nodes = nodes
        self.controllers = [network.NODE_ADDRESS, network.pod_address(SECOND)]

    async def endpoints(self) -> list[dict[str, str]]:
        """Each controller's endpoints and what their load is taken from."""
        return [await self._endpoints(address) for address in self.controllers]

    async def _endpoints(self, address: str) -> dict[str, str]:
        page = (await wire.get(address, 9090, "/metrics")).decode()
        found = [sample for sample in samples(page) if sample.name == "sonde_controller_endpoint_load"]
        return {sample.labels["pod"]: sample.labels["source"] for sample in found}

    async def devices(self) -> dict[str, str]:
        """The devices of pods, by what the agents' pages say."""
        pages = [(await wire.get(node.ip, 9432, "/metrics")).decode() for node in self.nodes]
        found = [one for page in pages for one in samples(page) if one.name == "sonde_pod_device_info"]
        return {sample.labels["pod"]: sample.labels["device"] for sample in found}

    async def until(self, holds: Callable[[dict[str, str]], bool]) -> float:
        """How long it took until it holds for all controllers."""
        began_s = time.monotonic()
        now = await self.endpoints()
        while not all(holds(each) for each in now):
            if time.monotonic() - began_s > 20:
                raise AssertionError(f"after 20 s: {now}")
            await asyncio.sleep(0.01)
            now = await self.endpoints()
        return time.monotonic() - began_s

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[list[int]]:
        """Requests without a pause, three at a time; the statuses of those that ended."""
        statuses: list[int] = []
        over = asyncio.Event()
        body = json.dumps({"model": "lab", "prompt": "hello", "max_tokens": 4}).encode()

        async def ask_on() -> None:
            while not over.is_set():
                where = (network.NODE_ADDRESS, GATEWAY_PORT, "/v1/completions")
                statuses.append((await asyncio.to_thread(post, *where, body, {})).status)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ask_on())
            try:
                yield statuses
            finally:
                over.set()


@asynccontextmanager
async def installed(site: Site) -> AsyncIterator[Cluster]:
    """Applied and running: three nodes with two pods each, the controller, Envoy."""
    site.apply("base")
    site.keep_certificates()
    nodes = [Node(site, f"node-{index}", index) for index in range(3)]
    try:
        for node in nodes:
            node.boot()
            await node.start_kubelet(f"default/pod-{PODS[2 * node.index]}=nvidia.com/gpu:GPU-{node.index}")
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(node.start_agent())
        site.server.put(pool(ports=(ENGINE_PORT,)))
        async with asyncio.TaskGroup() as group:
            for at, index in enumerate(PODS):
                group.create_task(nodes[at // 2].start_pod(f"pod-{index}", index, app="llm"))
        command = controller_command(site, VALUES)
        controller = await site.start("controller", command)
        other = await site.start("other", network.enter_command(network.pod_namespace(site.lab, SECOND), command))
        cluster = Cluster(site, nodes)
        for process, address in zip((controller, other), cluster.controllers, strict=True):
            await processes.listening(process, address, 9002, 60)
        pods = tuple((network.pod_address(index), ENGINE_PORT) for index in range(3, PODS.stop))
        one_picker, *more = [(address, 9002) for address in cluster.controllers]
        config = envoy.Gateway(pods=pods, picker=one_picker, more_pickers=tuple(more), host=network.NODE_ADDRESS)
        file = site.folder / "envoy.json"
        file.write_text(json.dumps(envoy.bootstrap(config)))
        gateway = await site.start("envoy", envoy.command(envoy_binary(), file))
        await processes.listening(gateway, network.NODE_ADDRESS, GATEWAY_PORT, 60)
        yield cluster
    finally:
        await site.stop()
        for node in nodes:
            node.halt()


@pytest.mark.timeout(240)
def test_three_nodes_from_apply_to_delete(site: Site) -> None:
    async def body() -> None:
        async with installed(site) as cluster:
            names = {f"pod-{index}" for index in PODS}
            measured = dict.fromkeys(names, "kernel")
            await cluster.until(lambda now: now == measured)
            first, second, third = cluster.nodes
            assert await cluster.devices() == {"pod-3": "GPU-0", "pod-5": "GPU-1", "pod-7": "GPU-2"}
            async with cluster.asking() as statuses:
                # pods go and come by their objects
                gone = second.documents["pod-5"]
                cluster.site.server.delete(gone)
                took = {"a pod deleted": await cluster.until(lambda now: set(now) == names - {"pod-5"})}
                cluster.site.server.put(gone)
                took["a pod created"] = await cluster.until(lambda now: now == measured)
                # an agent is upgraded: hook, end, init container, start
                before = len(statuses)
                await first.stop_agent()
                await first.start_agent()
                took["an agent upgraded"] = await cluster.until(lambda now: now == measured)
                assert len(statuses) > before
                assert Counter(statuses) == {200: len(statuses)}
            # a node is lost between two requests: its agent, its engines, and then its objects
            for process in (third.agent, *third.engines.values()):
                assert process is not None
                os.kill(process.pid, 9)
            for document in third.documents.values():
                cluster.site.server.delete(document)
            left = dict.fromkeys(names - set(third.engines), "kernel")
            took["a node lost"] = await cluster.until(lambda now: now == left)
            async with cluster.asking() as statuses:
                while len(statuses) < 30:
                    await asyncio.sleep(0.05)
            assert Counter(statuses) == {200: len(statuses)}
            # kubectl delete -k: the DaemonSet goes first, then its pods; nothing stays in the kernel
            cluster.site.server.delete(one("base", "DaemonSet", "sonde-agent"))
            await second.stop_agent()
            pins = second.inside(["ls", "/sys/fs/bpf"])
            listed = await processes.finish("ls", pins, cluster.site.logs, 10)
            assert "sonde" not in listed
            for what, seconds in took.items():
                sys.stdout.write(f"{what}: endpoints right after {seconds:.3f} s\n")

    run(body(), 220, debug=False)
