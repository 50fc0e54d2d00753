"""Counts for pods that run before their manifest is known: buffered in slots of their own, theirs when they are named.

A pod's cgroup names its uid, and the kernel says at which ports it listens. That makes endpoints, and an endpoint holds
its slot whoever asked for it: when the manifest comes and a pool selects the port, all that was counted is there. What
is no pool's after all gives the slot back. Pure but for the listeners, which are asked for through `Ports`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from agent.placing.pods import CgroupId, PodUid
from agent.placing.slots import Endpoint, Wanted

PATIENCE_S = 600.0  # a pod that is still unknown then is nobody's: a tool's, or another cluster's
OFTEN_WITHIN_S = 30.0  # of its coming, each look asks where it listens; later one does each RARELY_S
RARELY_S = 10.0
MOST_SLOTS = 64  # pods that are known must not go without

Ports = Callable[[Collection[CgroupId]], Mapping[int, frozenset[CgroupId]]]  # by port, the cgroups that listen there


class Strangers:
    """Remembers since when each is there."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._since_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}
        self._endpoints: dict[Endpoint, frozenset[CgroupId]] = {}

    def look(
        self, found: Mapping[str, Collection[CgroupId]], known: Collection[str], now_s: float
    ) -> dict[Endpoint, frozenset[CgroupId]]:
        """The endpoints to hold slots for; `found` are pods of the tree by uid, `known` those that have a manifest."""
        self._since_s = {uid: self._since_s.get(uid, now_s) for uid in found if uid not in known}
        waited_for = {uid for uid, since_s in self._since_s.items() if now_s - since_s < PATIENCE_S}
        self._asked_s = {uid: asked_s for uid, asked_s in self._asked_s.items() if uid in waited_for}
        self._endpoints = {end: ids for end, ids in self._endpoints.items() if end.uid in waited_for}
        for uid in sorted(uid for uid in waited_for if self._is_due(uid, now_s)):
            self._asked_s[uid] = now_s
            # all of the pod's cgroups, as for any other pod: which of them listens is no matter
            whole = frozenset(found[uid])
            for port in self._ports(whole):
                if Endpoint(PodUid(uid), port) in self._endpoints or len(self._endpoints) < MOST_SLOTS:
                    self._endpoints[Endpoint(PodUid(uid), port)] = whole
        return dict(self._endpoints)

    def _is_due(self, uid: str, now_s: float) -> bool:
        early = now_s - self._since_s[uid] <= OFTEN_WITHIN_S
        return early or now_s - self._asked_s.get(uid, now_s - RARELY_S) >= RARELY_S

    def waiting(self, now_s: float, within_s: float) -> bool:
        """Whether one came so lately that it may soon listen."""
        return any(now_s - since_s < within_s for since_s in self._since_s.values())


def with_strangers(wanted: Wanted, strangers: Wanted) -> dict[Endpoint, frozenset[CgroupId]]:
    """What a manifest says comes first."""
    return {**strangers, **wanted}
