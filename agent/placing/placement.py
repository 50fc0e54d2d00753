"""Keeps the kernel's table of owners in step with the pods of the node and their cgroups.

Owns the current slots.Table and says once what cannot be measured and why; the decisions themselves are in slots.py.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from agent.placing.pods import CgroupId, PodUid, ServingPod
from agent.placing.slots import Endpoint, Owner, SlotMaps, Table, Wanted, adopt, apply, settle
from agent.placing.strangers import with_strangers
from agent.view import Place

log = logging.getLogger(__name__)

# a pod is listed before its containers start; below this it is early, not missing
SAY_MISSING_AFTER_S = 1.0
# how long a pod without cgroup is looked for often: starting it may take the runtime that long
SEARCH_OFTEN_S = 30.0

NOBODY: Wanted = {}
Cgroups = Mapping[str, frozenset[CgroupId]]  # by ServingPod.cgroup_name


class Maps(SlotMaps, Protocol):
    """What placing needs to know of the maps besides."""

    capacity: int
    owners_capacity: int

    def generations(self) -> list[int]: ...
    def connections(self, count: int) -> list[int]: ...


class Placement:
    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._adopted = False
        self._missing_since: dict[tuple[str, str], float] = {}
        self._said: set[tuple[str, str]] = set()
        self._short = False
        self._serving: int | None = None
        self.table = Table(tuple(maps.generations()))
        self.used = self.table.used()  # slots to read, counted from the first

    def update(
        self, pods: Collection[ServingPod], cgroups: Cgroups, now_s: float, strangers: Wanted = NOBODY
    ) -> dict[Place, Owner]:
        """Gives each serving port whose pod has cgroups its slot; returns who counts whom. Strangers get slots too.

        The first call takes over what an earlier agent left in the maps, so it must know the pods.
        """
        places, named = endpoints_of(pods, cgroups)
        wanted = with_strangers(named, strangers)
        if not self._adopted:
            self.table, changes = adopt(self.table.generations, self._maps.owners(), wanted)
            apply(changes, self._maps)
            self._maps.bump_epoch()  # the one before may have died between its last change and this
            self._adopted = True
        self.table, changes = settle(self.table, wanted, self._maps.connections(self.used), self._maps.owners_capacity)
        apply(changes, self._maps)
        self.used = self.table.used()
        self._note_number(len(pods))
        self._note_missing(pods, cgroups, now_s)
        self._note_shortage(sum(bool(ids) for ids in wanted.values()))
        return {places[endpoint]: held.owner for endpoint, held in self.table.held.items() if endpoint in places}

    def searching(self, now_s: float) -> bool:
        """Whether a pod without cgroup is still likely to get one soon."""
        return any(now_s - since < SEARCH_OFTEN_S for since in self._missing_since.values())

    def _note_number(self, serving: int) -> None:
        """None at all is most often a wrong --node-name or a pool that selects nothing."""
        if serving != self._serving:
            log.info("pods of this node that a pool selects: %d", serving)
        self._serving = serving

    def _note_missing(self, pods: Collection[ServingPod], cgroups: Cgroups, now_s: float) -> None:
        missing = {(pod.namespace, pod.name): pod for pod in pods if not _cgroups_of(pod, cgroups)}
        self._missing_since = {key: self._missing_since.get(key, now_s) for key in missing}
        for key in self._said - missing.keys():
            log.info("pod is measured now, or gone pod=%s/%s", *key)
        self._said &= missing.keys()
        for key, pod in missing.items():
            if key not in self._said and now_s - self._missing_since[key] >= SAY_MISSING_AFTER_S:
                self._said.add(key)
                log.warning(
                    "pod is not measured in the kernel, it stays listed as unknown pod=%s/%s: %s",
                    *key,
                    _why_missing(pod),
                )

    def _note_shortage(self, wanted: int) -> None:
        without = wanted - len(self.table.held)
        if without and not self._short:
            log.warning(
                "no free slot or no room in the owners map: %d endpoints stay unknown "
                "slots=%d held=%d retired=%d (a retired slot is free when its pod's last connection is closed)",
                without,
                self._maps.capacity,
                len(self.table.held),
                len(self.table.retired),
            )
        if self._short and not without:
            log.info("every endpoint has a slot again")
        self._short = bool(without)


def endpoints_of(
    pods: Collection[ServingPod], cgroups: Cgroups
) -> tuple[dict[Endpoint, Place], dict[Endpoint, frozenset[CgroupId]]]:
    """The serving ports of the pods that have a uid, and their cgroups. Of two pods with one name the first counts.

    A slot is held under what the cgroup is called after: that is all there is to know before the manifest comes.
    """
    places: dict[Endpoint, Place] = {}
    wanted: dict[Endpoint, frozenset[CgroupId]] = {}
    for pod in pods:
        for port in pod.ports:
            if pod.uid is None or pod.cgroup_name is None:
                continue
            endpoint = Endpoint(PodUid(pod.cgroup_name), port)
            if endpoint in places:
                continue
            places[endpoint] = Place(pod.namespace, pod.name, pod.uid, port)
            wanted[endpoint] = _cgroups_of(pod, cgroups)
    return places, wanted


def _cgroups_of(pod: ServingPod, cgroups: Cgroups) -> frozenset[CgroupId]:
    return cgroups.get(pod.cgroup_name, frozenset()) if pod.cgroup_name else frozenset()


def _why_missing(pod: ServingPod) -> str:
    if pod.uid is None:
        return "its manifest has no metadata.uid"
    if pod.cgroup_name is None:
        return "its annotation kubernetes.io/config.hash is the uid of another pod"
    return f"no cgroup of the name pod{pod.cgroup_name}"
