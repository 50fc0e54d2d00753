"""The whole install on three nodes: from `kubectl apply -k` to its end, under requests. Needs root, BPF and Envoy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.kernel import cgroups as tree
from lab import cgroups, envoy, network, processes, substrate, wire
from lab.watch import samples
from tests.apiserver import ApiServer
from tests.conftest import run, skip_or_fail
from tests.daemonset.rendered import one
from tests.gateway.nodes import ENGINE_PORT, Node, Site, controller_command
from tests.gateway.site import envoy_binary, post
from tests.kube import kubeconfig, pool

PODS = range(3, 9)  # network namespaces 0 to 2 are the agents'
GATEWAY_PORT = 8080
VALUES = {"POOL_NAME": "llm", "POOL_NAMESPACE": "default", "POOL_GROUP": "inference.networking.k8s.io"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    envoy_binary()
    lab = f"sonde-t{os.getpid()}"
    choice = substrate.choose(lab, None)
    if choice.kind.value != "namespaces" or shutil.which("unshare") is None:
        skip_or_fail("kernel", choice.why[0] if choice.why else "no program 'unshare'")
    folder = Path("/tmp") / lab  # short, for sockets; writable for the controller's user by mode
    folder.mkdir(mode=0o755)
    (folder / "logs").mkdir()
    lab_slice = cgroups.slice_of(tree.root(), lab)
    try:
        network.build(lab, PODS.stop)
        cgroups.make(lab_slice)
        with network.inside(network.node_namespace(lab)):
            server = ApiServer(token="t", host=network.NODE_ADDRESS)
            try:
                yield Site(lab, lab_slice, folder, server, kubeconfig(folder, server.url, "t"), folder / "logs")
            finally:
                server.stop()
    finally:
        cgroups.remove(lab_slice)
        network.remove(lab)
        shutil.rmtree(folder)


class Cluster:
    def __init__(self, site: Site, nodes: list[Node]) -> None:
        self.site = site
        self.nodes = nodes
        self.metrics_port = 9090

    async def endpoints(self) -> dict[str, str]:
        """The controller's endpoints and what their load is taken from."""
        page = (await wire.get(network.NODE_ADDRESS, self.metrics_port, "/metrics")).decode()
        found = [sample for sample in samples(page) if sample.name == "sonde_controller_endpoint_load"]
        return {sample.labels["pod"]: sample.labels["source"] for sample in found}

    async def until(self, holds: Callable[[dict[str, str]], bool]) -> float:
        """How long it took."""
        began_s = time.monotonic()
        while not holds(now := await self.endpoints()):
            if time.monotonic() - began_s > 20:
                raise AssertionError(f"after 20 s: {now}")
            await asyncio.sleep(0.01)
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
    for path in [site.folder / "secrets", *(site.folder / "secrets").rglob("*"), site.kubeconfig]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    nodes = [Node(site, f"node-{index}", index) for index in range(3)]
    try:
        for node in nodes:
            node.boot()
            await node.start_agent()
        site.server.put(pool(ports=(ENGINE_PORT,)))
        for at, index in enumerate(PODS):
            await nodes[at // 2].start_pod(f"pod-{index}", index, app="llm")
        controller = await site.start("controller", controller_command(site, VALUES))
        await processes.listening(controller, network.NODE_ADDRESS, 9002, 60)
        pods = tuple((network.pod_address(index), ENGINE_PORT) for index in range(3, PODS.stop))
        config = envoy.Gateway(pods=pods, picker=(network.NODE_ADDRESS, 9002), host=network.NODE_ADDRESS)
        file = site.folder / "envoy.json"
        file.write_text(json.dumps(envoy.bootstrap(config)))
        gateway = await site.start("envoy", envoy.command(envoy_binary(), file))
        await processes.listening(gateway, network.NODE_ADDRESS, GATEWAY_PORT, 60)
        yield Cluster(site, nodes)
    finally:
        for process in reversed(site.running):
            await process.stop()
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
