"""Keeps the kernel's tables as the cluster and the controllers say, and beats while it does.

Owns when what is known becomes tables; refuses to know how it is learnt. Heartbeats stop where tables could not be kept
up to date, so that the kernel leaves connections alone after 3 s. What is wrong with a Service is one line, and what
was good about it before stays, for as long as its endpoints are Ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from agent.cluster.objects import Cluster, ObjectKey
from agent.kernel.steer_layout import SLOTS
from agent.placing.pods import CgroupId
from agent.steering import clients
from agent.steering.book import Book, Full, Wanted
from agent.steering.follower import Follower
from agent.steering.maps import Frontend, SteerMaps
from agent.steering.services import Found, Front, Named, Target, find, named, still_ready, wanted_services
from agent.steering.state import EndpointState, PoolName, PoolState, SteeringState
from agent.steering.weighing import FRAME_LIMIT_S, Frame, Place, Weighed, calm, newer, weigh
from agent.ticks import next_tick

log = logging.getLogger(__name__)

TICK_S = 0.5  # between two heartbeats; the kernel waits for 3 s
RENEW_S = 2.0  # between two looks at round trips
PATIENCE_S = 1.0  # a Service may be listed a moment after its pool
REASONS = ("steered", "stale", "no_endpoint", "client_label", "client_mesh", "no_memory")
NOTHING = Found({}, {})


class Steering:
    """`complete`: clusters have all pods, not only a node's."""

    def __init__(self, maps: SteerMaps, asked: Named, complete: bool, follower: Follower | None = None) -> None:
        self._maps = maps
        self._book = Book(maps)
        self._asked = asked
        self._complete = complete
        self._follower = follower
        self._cluster: Cluster | None = None
        self._cgroups: Mapping[str, frozenset[CgroupId]] = {}
        self._frames: dict[PoolName, Frame] = {}
        self._found = NOTHING
        self._fronts: dict[PoolName, tuple[Front, ...]] = {}  # the last good ones
        self._weighed: dict[Frontend, Weighed] = {}
        self._rtt_s: dict[Place, float] = {}
        self._changed = asyncio.Event()
        self._due_s = 0.0
        self._beating = False
        self._faulty_since: dict[str, float] = {}
        self._said: set[str] = set()
        self._problem = ""

    def services(self, cluster: Cluster) -> set[ObjectKey]:
        """What must be known of a cluster besides pods and pools."""
        return wanted_services(cluster, self._asked)

    def take(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ring()

    def see(self, cgroups: Mapping[str, frozenset[CgroupId]]) -> None:
        """The cgroups of the node's pods, by what they are called after."""
        if cgroups != self._cgroups:
            self._cgroups = dict(cgroups)
            self._ring()

    def hear(self, frame: Frame) -> None:
        self._frames[frame.pool] = newer(self._frames.get(frame.pool), frame)
        self._ring()

    def _ring(self) -> None:
        self._due_s = 0.0
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. One thread changes maps, and blocks for milliseconds where it puts a table."""
        with ThreadPoolExecutor(1, "steering") as thread:
            async with asyncio.TaskGroup() as group:
                if self._follower is not None:
                    group.create_task(self._follower.run(self.hear), name="weights")
                try:
                    while True:
                        await self._turn(thread)
                finally:
                    self._beating = False
                    self._maps.beat(0)

    async def _turn(self, thread: ThreadPoolExecutor) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(next_tick(asyncio.get_running_loop().time(), TICK_S)):
                await self._changed.wait()
        self._changed.clear()
        now_s = time.monotonic()
        if self._cluster is not None and now_s >= self._due_s:
            self._due_s = now_s + RENEW_S
            await self._settle(self._cluster, thread, now_s)
        if self._beating:
            self._maps.beat(time.monotonic_ns())
        self._complain(now_s)

    def _is_loaded(self) -> bool:
        """Whether there are programs to steer by; if they were loaded anew, all tables are to be put anew."""
        if self._maps.still_there():
            return True
        if not self._maps.reopen():
            return False
        self._book = Book(self._maps)
        return True

    async def _settle(self, cluster: Cluster, thread: ThreadPoolExecutor, now_s: float) -> None:
        if not self._is_loaded():
            self._beating, self._problem = False, "the programs were taken away: run 'sonde-agent load --steer'"
            return
        wanted = self._wanted(cluster, now_s)
        skips = clients.skips(clients.left_alone(cluster), self._cgroups)

        def change() -> None:
            self._book.skip(skips)
            self._book.settle(wanted, now_s)

        try:
            await asyncio.get_running_loop().run_in_executor(thread, change)
        except (Full, OSError) as error:
            self._beating, self._problem = False, f"tables cannot be kept up to date: {error}"
        else:
            self._beating, self._problem = True, ""

    def _wanted(self, cluster: Cluster, now_s: float) -> dict[Frontend, Wanted]:
        held = {front.frontend: key for key, fronts in self._fronts.items() for front in fronts}
        self._found = find(cluster, self._asked, self._complete, held)
        self._fronts = self._good_fronts(cluster)
        self._frames = {key: frame for key, frame in self._frames.items() if _is_fresh(frame, now_s)}
        self._rtt_s = calm(self._rtt_s, self._book.rtt_s())
        fronts = [front for each in self._fronts.values() for front in each]
        self._weighed = {front.frontend: self._weigh(front) for front in fronts}
        return {front.frontend: Wanted(front.pool, self._weighed[front.frontend].weights) for front in fronts}

    def _weigh(self, front: Front) -> Weighed:
        """What is too much for a table leaves the last good shares, to who is Ready."""
        found = weigh(front, self._frames.get(front.pool), self._rtt_s)
        if len(found.weights) <= SLOTS:
            return found
        fault = f"pool {'/'.join(front.pool)}: {len(found.weights)} Ready endpoints, a table holds {SLOTS}"
        faults = {**self._found.faults, front.pool: f"{fault}: the last good one stays"}
        self._found = replace(self._found, faults=faults)
        last, ready = self._weighed.get(front.frontend), set(front.ready or ())
        kept = {target: weight for target, weight in last.weights.items() if target in ready} if last else {}
        return Weighed(last.source if last and kept else "none", kept)

    def _good_fronts(self, cluster: Cluster) -> dict[PoolName, tuple[Front, ...]]:
        """Those found; of a pool with a fault those of before, without endpoints of which a pod is not Ready now."""
        wanted = named(cluster, self._asked)
        kept = {
            key: tuple(still_ready(cluster, wanted[key], front, self._complete) for front in self._fronts[key])
            for key in self._found.faults.keys() & self._fronts.keys()
            if key in wanted and (key[0], wanted[key]) in cluster.services
        }
        return {**kept, **self._found.fronts}

    def _complain(self, now_s: float) -> None:
        """Once each, and once when it is over. What is not there yet may come."""
        faults = {fault: PATIENCE_S if key in self._found.absent else 0.0 for key, fault in self._found.faults.items()}
        faults |= {self._problem: 0.0} if self._problem else {}
        self._faulty_since = {fault: self._faulty_since.get(fault, now_s) for fault in faults}
        for fault in sorted(faults.keys() - self._said):
            if now_s - self._faulty_since[fault] >= faults[fault]:
                self._said.add(fault)
                log.warning("%s", fault)
        for fault in self._said - faults.keys():
            log.info("no longer so: %s", fault)
        self._said &= faults.keys()

    def state(self) -> SteeringState:
        now_s = time.monotonic()
        return SteeringState(
            pools=[self._pool_state(key, now_s) for key in sorted({*self._fronts, *self._found.faults})],
            endpoints=self._endpoint_states(),
            controllers=self._follower.connected if self._follower else 0,
            frames=self._follower.frames if self._follower else 0,
            changes=self._book.changes,
            left_alone=self._book.left_alone,
            beating=self._beating,
            problems={"steering": self._problem} if self._problem else {},
        )

    def _pool_state(self, key: PoolName, now_s: float) -> PoolState:
        fronts = self._fronts.get(key, ())
        standing = [self._book.standing[one.frontend] for one in fronts if one.frontend in self._book.standing]
        row = self._maps.pools[standing[0].entry.pool] if standing else None
        sources = {self._weighed[one.frontend].source for one in fronts if one.frontend in self._weighed}
        source = next((one for one in ("controller", "equal") if one in sources), "none")
        frame = self._frames.get(key)
        services = named(self._cluster, self._asked) if self._cluster else {}
        return PoolState(
            pool=key,
            service=services.get(key, ""),
            source=source,
            fault=self._found.faults.get(key, ""),
            frontends=[f"{one.frontend.address}:{one.frontend.port}" for one in fronts],
            by_reason={} if row is None else {reason: int(row[reason]) for reason in REASONS},
            table_age_s=min((now_s - one.put_at_s for one in standing if one.wanted), default=None),
            weights_age_s=now_s - frame.true_at_s if frame and source == "controller" else None,
        )

    def _endpoint_states(self) -> list[EndpointState]:
        rtt_s, intended = self._book.rtt_s(), self._book.intended_now()
        return [
            EndpointState(
                pool=key,
                pod=target.pod,
                connections=int(self._maps.endpoints["connections"][index]),
                intended=intended.get(index, 0.0),
                share=share,
                rtt_s=rtt_s.get(target[:2]),
            )
            for key, fronts in self._fronts.items()
            for target, share in self._shares(fronts).items()
            if (index := self._book.endpoint_index(target[:2])) is not None
        ]

    def _shares(self, fronts: tuple[Front, ...]) -> dict[Target, float]:
        """Over all addresses of a Service, each as important as the others."""
        found: dict[Target, float] = {}
        for front in fronts:
            weighed = self._weighed.get(front.frontend)
            total = sum(weighed.weights.values()) if weighed else 0.0
            for target, weight in weighed.weights.items() if weighed else ():
                found[target] = found.get(target, 0.0) + (weight / total / len(fronts) if total else 0.0)
        return found


def _is_fresh(frame: Frame, now_s: float) -> bool:
    return now_s - frame.true_at_s <= FRAME_LIMIT_S
