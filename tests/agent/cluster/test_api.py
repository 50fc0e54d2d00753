"""Both daemons' view of a cluster: the in-repo server's, and a kube-apiserver's where KUBEBUILDER_ASSETS names one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import pytest

from agent.cluster import access, api
from agent.cluster.objects import Cluster
from agent.cluster.watching import Pace
from tests.apiserver import ApiServer, Fault, serving
from tests.conftest import run, skip_or_fail
from tests.kube import agent_pod, assets, kubeconfig, objective, pod, pool, real_server

POOL = ("inference.networking.k8s.io", "default", "llm")
PACE = Pace(first_s=0.01, most_s=0.1, list_read_s=5)


class Server(Protocol):
    url: str
    token: str

    def put(self, document: dict[str, Any]) -> None: ...
    def delete(self, document: dict[str, Any]) -> None: ...


@pytest.fixture(params=["in-repo", "kube-apiserver"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "in-repo":
        with serving() as running:
            yield running
        return
    binaries = assets()
    if binaries is None:
        skip_or_fail("apiserver", "KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd")
    with real_server(binaries, tmp_path) as real:
        yield real


def door(server: Any, folder: Path) -> access.Access:
    if isinstance(server, ApiServer):
        return access.find(kubeconfig(folder, server.url, server.token))
    return access.find(server.kubeconfig(folder))


async def until(clusters: Any, holds: Callable[[Cluster], bool]) -> Cluster:
    async for cluster in clusters:
        if holds(cluster):
            return cluster
    raise AssertionError("the clusters ended")


def names(cluster: Cluster) -> set[str]:
    return {name for _, name in cluster.pods}


def test_an_agent_sees_the_pods_of_its_node_and_all_pools(server: Server, tmp_path: Path) -> None:
    async def body() -> None:
        server.put(pool())
        server.put(pod("mine", "n1"))
        server.put(pod("other", "n2"))
        async with aclosing(api.watch_node(door(server, tmp_path), "n1", pace=PACE)) as clusters:
            first = await anext(clusters)
            assert (names(first), [one.name for one in first.pools.values()]) == ({"mine"}, ["llm"])
            await asyncio.to_thread(server.put, pod("second", "n1", "10.0.0.2"))
            await until(clusters, lambda now: names(now) == {"mine", "second"})
            await asyncio.to_thread(server.delete, pod("mine", "n1"))
            await until(clusters, lambda now: names(now) == {"second"})

    run(body(), 60, debug=False)


def service(name: str) -> dict[str, Any]:
    spec = {"clusterIP": "10.96.0.10", "ports": [{"port": 80, "targetPort": 8000}], "selector": {"app": "llm"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def endpoint_slice(of: str, *addresses: str) -> dict[str, Any]:
    metadata = {"name": f"{of}-x", "namespace": "default", "labels": {"kubernetes.io/service-name": of}}
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    ports = [{"name": "", "port": 8000, "protocol": "TCP"}]
    kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    return {**kind, "metadata": metadata, "endpoints": endpoints, "ports": ports}


def test_an_agent_that_steers_sees_the_services_it_names_and_who_is_behind_them(tmp_path: Path) -> None:
    wanted = {("default", "direct")}

    async def body() -> None:
        with serving() as server:
            server.put(pool())
            for name in ("direct", "other"):
                server.put(service(name))
                server.put(endpoint_slice(name, "10.0.0.1"))
            clusters = api.watch_node(door(server, tmp_path), "n1", pace=PACE, services=lambda _: wanted)
            async with aclosing(clusters):
                found = await until(clusters, lambda now: bool(now.services) and bool(now.slices))
                assert (set(found.services), set(found.slices)) == (wanted, {("default", "direct-x")})
                await asyncio.to_thread(server.put, endpoint_slice("direct", "10.0.0.1", "10.0.0.2"))
                await until(clusters, lambda now: [len(one.endpoints) for one in now.slices.values()] == [2])
                wanted.clear()
                await asyncio.to_thread(server.put, pod("a"))
                await until(clusters, lambda now: "a" in names(now))
                await asyncio.to_thread(server.put, pod("b"))
                await until(clusters, lambda now: not now.services and not now.slices)

    run(body(), 60, debug=False)


def test_an_agent_that_may_not_see_services_goes_on_measuring(tmp_path: Path) -> None:
    async def body() -> None:
        with serving() as server:
            server.put(pool())
            server.forbidden |= {"/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"}
            clusters = api.watch_node(
                door(server, tmp_path), "n1", pace=PACE, services=lambda _: {("default", "direct")}
            )
            async with aclosing(clusters):
                assert (await anext(clusters)).services == {}
                await asyncio.to_thread(server.put, pod("a"))
                await until(clusters, lambda now: "a" in names(now))

    run(body(), 60, debug=False)


def test_a_controller_sees_its_pool_the_pods_of_its_selector_and_the_agents(server: Server, tmp_path: Path) -> None:
    async def body() -> None:
        server.put(pool(app="llm"))
        server.put(pod("a", app="llm"))
        server.put(pod("b", app="other"))
        server.put(objective("high", 10))
        server.put(agent_pod("agent-1", "n1", "10.0.0.9"))
        async with aclosing(api.watch_pool(door(server, tmp_path), POOL, "sonde-system", PACE)) as clusters:
            first = await anext(clusters)
            assert names(first) == {"a", "agent-1"}
            assert [one.priority for one in first.objectives.values()] == [10]
            assert [one.ip for one in first.agents()] == ["10.0.0.9"]
            await asyncio.to_thread(server.put, pool(app="other"))
            await until(clusters, lambda now: names(now) == {"b", "agent-1"})
            await asyncio.to_thread(server.put, objective("low", -1))
            await until(clusters, lambda now: len(now.objectives) == 2)
            await asyncio.to_thread(server.delete, pool())
            await until(clusters, lambda now: not now.pools)

    run(body(), 60, debug=False)


def test_a_controller_needs_no_crds_but_the_pools(tmp_path: Path) -> None:
    async def body() -> None:
        with serving() as server:
            group = "/apis/inference.networking.x-k8s.io/v1alpha2"
            server.absent |= {f"{group}/inferencemodels", f"{group}/inferenceobjectives"}
            server.absent |= {f"{group}/inferencemodelrewrites", "/apis/llm-d.ai/v1alpha2/inferenceobjectives"}
            server.absent |= {"/apis/llm-d.ai/v1alpha2/inferencemodelrewrites"}
            server.forbidden.add("/api/v1/pods")
            server.put(pool())
            async with aclosing(api.watch_pool(door(server, tmp_path), POOL, "sonde-system", PACE)) as clusters:
                waiting = asyncio.ensure_future(anext(clusters))
                while sum("pods" in request for request in server.requests) < 4:
                    await asyncio.sleep(0.01)
                assert not waiting.done()  # pods may not be seen: that is not "no pods"
                server.forbidden.clear()
                server.put(pod("a"))
                assert names(await waiting) <= {"a"}
                server.absent.clear()
                server.put(objective("o", 4))
                await until(clusters, lambda now: len(now.objectives) == 1)

    run(body(), 40, debug=False)


def test_an_agent_of_a_few_namespaces_asks_for_no_others(tmp_path: Path) -> None:
    async def body() -> None:
        with serving() as server:
            server.put(pod("a"))
            async with aclosing(api.watch_node(door(server, tmp_path), "n1", ["default", "x"], PACE)) as clusters:
                assert names(await anext(clusters)) == {"a"}
            assert all("/namespaces/default/" in path or "/namespaces/x/" in path for path in server.requests)
            pods = [path for path in server.requests if "/pods" in path]
            assert all("fieldSelector=spec.nodeName%3Dn1" in path for path in pods)

    run(body(), debug=False)


def test_nothing_is_said_before_everything_was_listed(tmp_path: Path) -> None:
    async def body() -> None:
        with serving() as server:
            server.put(pool())
            server.put(pod("a"))
            server.faults.append(Fault(fits="/pods?", hang=True, once=False))
            async with aclosing(api.watch_node(door(server, tmp_path), "n1", pace=PACE)) as clusters:
                waiting = asyncio.ensure_future(anext(clusters))
                while not any("inferencepools" in path and "watch" in path for path in server.requests):
                    await asyncio.sleep(0.01)
                assert not waiting.done()
                waiting.cancel()
                await asyncio.wait([waiting])

    run(body(), debug=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "kubeconfig"), ("{}", "kubeconfig"), ("nonsense: [", "kubeconfig"), (None, "no access to an API server")],
)
def test_a_kubeconfig_that_is_none_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    with pytest.raises(access.AccessError, match=said) as fault:
        access.find(file)
    assert "\n" not in str(fault.value)
