"""A cluster read from its API server: which collections each daemon needs, joined into one Cluster that is kept fresh.

Owns the watchings and their joint state, which lives on the event loop; how one collection is followed is watching.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from agent.cluster.access import Access
from agent.cluster.kubelet import Polling
from agent.cluster.mirror import Key
from agent.cluster.objects import (
    AGENT_LABEL,
    LLM_D,
    V1,
    V1ALPHA2,
    Cluster,
    Object,
    ObjectKey,
    Pool,
    PoolKey,
    cluster_of,
)  # fmt: skip
from agent.cluster.services import DISCOVERY, SERVICE_NAME
from agent.cluster.watching import Collection, Health, Pace, Watching

SETTLE_S = 0.02  # changes that come together are one change
JOIN_S = 2.0

POOL_APIS = (V1, V1ALPHA2)
MODEL_KINDS = (
    (V1ALPHA2, "InferenceModel", "inferencemodels"),
    (V1ALPHA2, "InferenceObjective", "inferenceobjectives"),
    (LLM_D, "InferenceObjective", "inferenceobjectives"),
    (V1ALPHA2, "InferenceModelRewrite", "inferencemodelrewrites"),
    (LLM_D, "InferenceModelRewrite", "inferencemodelrewrites"),
)


@dataclass(eq=False)
class Watches:
    """Watchings by name and the objects each of them knows. All but the telling happens on one event loop."""

    access: Access
    pace: Pace = field(default_factory=Pace)
    rng: Random = field(default_factory=Random)
    _running: dict[str, Watching | Polling] = field(default_factory=dict)
    _objects: dict[str, dict[Key, Object]] = field(default_factory=dict)
    _listed: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def follow(self, name: str, collection: Collection) -> None:
        """Starts, or replaces one of another collection; what that knew stays until the new one has listed."""
        old = self._running.get(name)
        if old is not None and old.collection == collection:
            return
        if old is not None:
            old.stop()
        loop = asyncio.get_running_loop()

        def tell(changes: dict[Key, Object | None], whole: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._take, name, watching, changes, whole)

        watching = Watching(self.access, collection, tell, self.pace, Random(self.rng.random()))
        self._running[name] = watching
        self._listed.discard(name)
        watching.start()

    def poll(self, name: str, kubelet: Access) -> None:
        """Follows a kubelet's pods."""
        loop = asyncio.get_running_loop()

        def tell(changes: dict[Key, Object | None], whole: bool) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._take, name, polling, changes, whole)

        polling = self._running[name] = Polling(kubelet, tell)
        polling.start()

    def leave(self, name: str) -> None:
        old = self._running.pop(name, None)
        if old is not None:
            old.stop()
            self._listed.discard(name)
            if self._objects.pop(name, None):
                self._changed.set()

    def _take(self, name: str, sender: Watching | Polling, changes: dict[Key, Object | None], whole: bool) -> None:
        if self._running.get(name) is not sender:
            return
        objects = {} if whole else self._objects.setdefault(name, {})
        for key, value in changes.items():
            if value is None:
                objects.pop(key, None)
            else:
                objects[key] = value
        self._objects[name] = objects
        self._listed.add(name)
        self._changed.set()

    def is_known(self, name: str) -> bool:
        """Whether it was listed once, or is known not to be there."""
        return name in self._listed

    def health(self) -> Mapping[str, Health]:
        return {name: watching.health for name, watching in self._running.items()}

    def cluster(self) -> Cluster:
        return cluster_of([value for objects in self._objects.values() for value in objects.values()])

    async def change(self) -> None:
        """Waits for the next change, and for what comes with it."""
        await self._changed.wait()
        await asyncio.sleep(SETTLE_S)
        self._changed.clear()

    async def close(self) -> None:
        for watching in self._running.values():
            watching.stop()
        await asyncio.to_thread(_join, list(self._running.values()))


def _join(watchings: Sequence[Watching | Polling]) -> None:
    """A thread that waits for a server's answer is left: it is a daemon and tells nobody."""
    until_s = time.monotonic() + JOIN_S
    for watching in watchings:
        watching.join(max(0.0, until_s - time.monotonic()))


Look = Callable[[Mapping[str, Health]], None]
Services = Callable[[Cluster], Iterable[ObjectKey]]


async def watch_node(
    access: Access,
    node: str,
    namespaces: Sequence[str] = (),
    pace: Pace | None = None,
    look: Look = lambda _: None,
    kubelet: Access | None = None,
    services: Services = lambda _: (),
) -> AsyncGenerator[Cluster, None]:
    """What an agent needs: the pods of its node, and every pool. Without namespaces: all of them.
    With a kubelet the pods are asked of it.

    Yields when pods and pools were listed once, then after each change. The Services that `services` names, and who is
    behind them, come when they are known: measuring does not wait for them.
    """
    watches = Watches(access, pace or Pace())
    behind: set[str] = set()  # names of what follows Services
    try:
        for namespace in namespaces or (None,):
            where = namespace or "*"
            pods = Collection("v1", "Pod", "pods", namespace, fields=f"spec.nodeName={node}", needed=True, cached=True)
            if kubelet is None:
                watches.follow(f"pods {where}", pods)
            for api in POOL_APIS:
                pools = Collection(api, "InferencePool", "inferencepools", namespace)
                watches.follow(f"pools {api} {where}", pools)
        if kubelet is not None:
            watches.poll("pods", kubelet)
        while True:
            look(watches.health())
            await watches.change()
            if all(watches.is_known(name) for name in watches.health().keys() - behind):
                cluster = watches.cluster()
                behind = _follow_services(watches, services(cluster), behind)
                yield cluster
    finally:
        await watches.close()


def _follow_services(watches: Watches, wanted: Iterable[ObjectKey], before: set[str]) -> set[str]:
    """One Service and its slices at a time: all of a large cluster's would be much for every node to follow."""
    following: set[str] = set()
    for namespace, name in wanted:
        one = Collection("v1", "Service", "services", namespace, fields=f"metadata.name={name}")
        labels = f"{SERVICE_NAME}={name}"
        behind = Collection(DISCOVERY, "EndpointSlice", "endpointslices", namespace, labels=labels)
        for kind, collection in (("service", one), ("slices", behind)):
            watches.follow(f"{kind} {namespace}/{name}", collection)
            following.add(f"{kind} {namespace}/{name}")
    for gone in before - following:
        watches.leave(gone)
    return following


async def watch_pool(
    access: Access, pool: PoolKey, agent_namespace: str, pace: Pace | None = None, look: Look = lambda _: None
) -> AsyncGenerator[Cluster, None]:
    """What a controller needs: one pool, the pods it selects, what is said about its models, and the agents' pods.

    Yields when all was listed once, then after each change. All is in one namespace, so a Role is enough for it;
    the agents' are in theirs.
    """
    watches = Watches(access, pace or Pace())
    group, namespace, name = pool
    try:
        for api in (api for api in POOL_APIS if api.startswith(f"{group}/")):
            fields = f"metadata.name={name}"
            one = Collection(api, "InferencePool", "inferencepools", namespace, fields=fields, needed=True)
            watches.follow("pool", one)
        for api, kind, plural in MODEL_KINDS:
            watches.follow(f"{plural} {api}", Collection(api, kind, plural, namespace))
        agents = Collection("v1", "Pod", "pods", agent_namespace, labels="=".join(AGENT_LABEL))
        watches.follow("agents", agents)
        while True:
            look(watches.health())
            await watches.change()
            cluster = watches.cluster()
            _follow_pods(watches, cluster.pools.get(pool), namespace)
            if all(watches.is_known(name) for name in watches.health()):
                yield cluster
    finally:
        await watches.close()


def _follow_pods(watches: Watches, pool: Pool | None, namespace: str) -> None:
    """The pods of the pool's selector. A pool that is gone for a moment keeps its pods watched."""
    if pool is not None:
        labels = ",".join(f"{key}={value}" for key, value in sorted(pool.selector.items()))
        watches.follow("pods", Collection("v1", "Pod", "pods", namespace, labels=labels, needed=True))
