"""`sonde-agent run`: wires the parts together, starts them and ends them in order.

Tasks, all on one event loop: `sampler` reads the slots each interval; `beat` sends full frames each second and small
ones between them; `cluster` follows manifests or the API server; `placer` follows cgroups and gives pods their slots;
`pages` reads the engines; `governor` bounds what the kernel programs cost. On SIGTERM or SIGINT the streams end, the
server closes, the tasks are cancelled, then the metrics server and the maps are closed. Pins stay: they hold the counts
for the next agent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from google.protobuf import json_format

from agent import starting, stream
from agent.config import RunConfig
from agent.devices.inventory import Inventory, Sources
from agent.engines.pages import EnginePages
from agent.exporting import metrics_server
from agent.exporting.metrics import AgentPage
from agent.exporting.snapshot import AgentState, PodDevices, PodState, SlotState, Snapshot
from agent.kernel.cgroups import NoCgroup2
from agent.kernel.governor import Governor
from agent.kernel.maps import LayoutMismatch, PinnedMaps
from agent.kernel.pins import NotLoaded, Pins
from agent.kernel.programs import Programs, programs
from agent.kernel.sampling import Sampler
from agent.kernel.unmeasured import Unmeasured
from agent.looking import lookout
from agent.looking.node import Warnings, pods_of
from agent.placing.placement import Cgroups, Placement
from agent.placing.pods import ServingPod, known_names, serving_pods
from agent.placing.slots import Wanted
from agent.placing.survey import Survey
from agent.recent import RENEW_NS
from agent.signals import FIELDS
from agent.starting import Clusters, StartError
from agent.steering.state import json_of
from agent.ticks import next_tick, tick
from agent.version import version
from agent.view import View

Maps = PinnedMaps | Unmeasured

if TYPE_CHECKING:
    from agent.cluster.watching import Health
    from agent.steering.steering import Steering

log = logging.getLogger(__name__)
T = TypeVar("T")

PULSE_S = 0.125  # a controller takes no count that is older than 250 ms
RENEW_EVERY = round(RENEW_NS * 1e-9 / PULSE_S)  # pulses between two renewals of what pods usually take
BEAT_EVERY = round(1 / PULSE_S)  # pulses between two full frames
LOOK_S = 1.0  # between two looks at the cgroups while the cluster does not change
SEARCH_S = 0.1  # the same while a pod has no cgroup yet
GRACE_S = 2.0
STUCK_S = 10.0  # without a look at the slots
THREADS = 2  # the sampler's and the placer's


def main(config: RunConfig) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status."""
    status = 0
    try:
        asyncio.run(_run(config))
    except* (StartError, NotLoaded) as faults:
        status = 1
        for fault in faults.exceptions:
            sys.stderr.write(f"sonde-agent run: {fault}\n")
    return status


async def _run(config: RunConfig) -> None:
    with ExitStack() as resources:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "agent"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        agent, server = await _start(config, resources)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in agent.work().items()]
            try:
                await stop.wait()
                log.info("stopping")
            finally:
                agent.telemetry.close()
                await server.stop(GRACE_S)
            for task in tasks:
                task.cancel()
    log.info("stopped")


async def _start(config: RunConfig, resources: ExitStack) -> tuple[_Agent, grpc.aio.Server]:
    """Opens what the agent needs. Raises StartError."""
    if config.manifests and not config.manifests.is_dir():
        raise StartError(f"--manifests {config.manifests} is no folder")
    try:
        followed: dict[str, Health] = {}
        steering = starting.steering(config)
        clusters = starting.clusters(config, followed.update, steering)
        credentials = starting.credentials(config)
        root = None if config.without_kernel else starting.cgroup_root(config.cgroup_root)
        maps: Maps = Unmeasured() if config.without_kernel else PinnedMaps(Pins(config.pin_root))
        resources.callback(maps.close)
        agent = _Agent(config, maps, root, clusters, followed, steering)
        server, port = stream.make_server(agent.telemetry, config.bind, config.port, credentials)
        loop = asyncio.get_running_loop()
        page = AgentPage(lambda: _ask(loop, agent.snapshot)).page
        bind = config.metrics_bind or config.bind
        metrics_port, close = metrics_server.serve(page, bind, config.metrics_port, lambda: _ask(loop, agent.state))
        resources.callback(close)
    except (NotLoaded, LayoutMismatch, NoCgroup2, OSError) as error:
        raise StartError(str(error)) from error
    await server.start()
    health_port = await _look_out(agent, config, resources)
    log.info(
        "running node=%s port=%d metrics_port=%d health_port=%d cgroup_root=%s pins=%s", config.node_name, port,
        metrics_port, health_port, root, config.pin_root,
    )  # fmt: skip
    return agent, server


async def _look_out(agent: _Agent, config: RunConfig, resources: ExitStack) -> int:
    """Serves health; its port, 0 where another process has it: an agent that cannot be asked still measures."""
    try:
        server = await lookout.serve(agent.lookout, config.bind, config.health_port)
    except OSError as error:
        log.warning("%s: going on without", error)
        return 0
    resources.callback(server.close)
    return int(server.sockets[0].getsockname()[1])


def _ask(loop: asyncio.AbstractEventLoop, make: Callable[[], T]) -> T:
    """What `make` says, for a thread of the metrics server; made by the loop, which owns the state."""

    async def answer() -> T:
        return make()

    return asyncio.run_coroutine_threadsafe(answer(), loop).result(timeout=GRACE_S)


class _Agent:
    """The parts and the loops between them. Raises OSError where another agent has the maps."""

    def __init__(
        self,
        config: RunConfig,
        maps: Maps,
        root: Path | None,
        clusters: Clusters,
        followed: Mapping[str, Health],
        steering: Steering | None = None,
    ) -> None:
        self._config = config
        maps.claim()
        self._maps = maps
        self._survey = Survey(root)
        self._clusters = clusters
        self._steering = steering
        self._pods: Collection[ServingPod] | None = None  # None: nothing is known yet
        self._look_now = asyncio.Event()
        self._placement = Placement(maps)
        self._view = View(config.node_name)
        self.telemetry = stream.Telemetry(self._view, controllers_only=config.tls_path is not None)
        self._sampler = Sampler(maps.slots, config.interval_s)
        self._sampled = b""  # what the view was given last
        self._governor = Governor(config.kernel_share, self._programs, maps)
        self._pages = EnginePages(self._view, config.engine_interval_s, self._publish)
        sources = Sources(config.pod_resources, config.dcgm_exporter, config.npu_exporter, config.nvml)
        self._inventory = Inventory(sources, self._describe)
        self._annotations: dict[tuple[str, str], Mapping[str, str]] = {}
        self._followed = followed
        self._warnings = Warnings()
        logging.getLogger().addHandler(self._warnings)
        self.lookout = lookout.Lookout(self._ailment, self._unready, self._node)

    def work(self) -> dict[str, Coroutine[None, None, None]]:
        return {
            "sampler": self._sampler.run(self._publish),
            "beat": self._beat_forever(),
            "cluster": self._follow_cluster(),
            "placer": self._place_forever(),
            "pages": self._pages.run(),
            "devices": self._inventory.run(),
            "governor": self._governor.run(),
            **({"steering": self._steering.run()} if self._steering else {}),
        }

    def _publish(self) -> None:
        """Brings the view up to the latest sample and tells the watchers if there is news."""
        self._take_sample()
        self.telemetry.tell()

    def _take_sample(self) -> None:
        rows, at_ns = self._sampler.take()
        if rows is self._sampled:
            self._view.confirm(at_ns)
        else:
            self._view.sample(np.frombuffer(rows, np.int64).reshape(-1, len(FIELDS)), at_ns)
        self._sampled = rows

    async def _beat_forever(self) -> None:
        pulses = 0
        while True:
            await tick(PULSE_S)
            pulses += 1
            self._take_sample()
            if pulses % RENEW_EVERY == 0:
                self._view.renew(time.monotonic_ns(), lambda slot: self._maps.histogram("gap_hist", slot))
            if pulses % BEAT_EVERY:
                self.telemetry.pulse()
            else:
                self.telemetry.beat()

    async def _follow_cluster(self) -> None:
        async with aclosing(self._clusters) as clusters:
            async for cluster in clusters:
                self._pods = serving_pods(cluster, self._config.node_name)
                self._annotations = {key: cluster.pods[key].annotations for key in _keys(self._pods)}
                self._survey.known = known_names(cluster)
                if self._steering:
                    self._steering.take(cluster)
                self._look_now.set()

    async def _place_forever(self) -> None:
        """Raises NotLoaded when the programs were unloaded meanwhile: who starts the agent again starts it right."""
        clock = asyncio.get_running_loop().time
        self._survey.tell(self._look_now.set)
        while True:
            self._maps.check_pinned()
            if self._pods is not None:
                pods = self._pods
                open_now = self._maps.connections(self._placement.used)
                cgroups, strangers = await self._survey.look(pods, self._placement.table.held, open_now, clock())
                self._place(pods, cgroups, strangers, clock())
                if self._steering:
                    self._steering.see(self._survey.cgroups())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_tick(clock(), SEARCH_S if self._searching(clock()) else LOOK_S)):
                    await self._look_now.wait()
            self._look_now.clear()

    def _programs(self) -> Programs:
        return {} if self._config.without_kernel else programs(Pins(self._config.pin_root))

    def _searching(self, now_s: float) -> bool:
        return self._placement.searching(now_s) or self._survey.searching(now_s)

    def _place(self, pods: Collection[ServingPod], cgroups: Cgroups, strangers: Wanted, now_s: float) -> None:
        if self._view.place(pods, self._placement.update(pods, cgroups, now_s, strangers)):
            self._sampler.follow(self._placement.used)
            self._publish()
        self._describe()

    def _describe(self) -> None:
        """Tells the view which devices its pods have, and how they are."""
        described = {key: self._inventory.of(key, told) for key, told in self._annotations.items()}
        if self._view.take_devices(described):
            self.telemetry.ring()

    def _ailment(self) -> str:
        """What kubelet should start the agent again for: it answers, so its loop lives; its sampler may not."""
        age_s = self._sampler.age_s(time.monotonic_ns())
        return f"the slots were last read {age_s:.0f} s ago" if age_s is not None and age_s > STUCK_S else ""

    def _unready(self) -> str:
        return "" if self._view.placed else "it is not known yet which pods are on the node"

    def _node(self) -> dict[str, Any]:
        held = {one.owner.slot: len(one.cgroups) for one in self._placement.table.held.values()}
        problems = {f"devices: {name}": one.problem for name, one in self._inventory.status.items() if one.problem}
        problems |= {f"API server: {name}": one.problem for name, one in self._followed.items() if one.problem}
        return {
            "node": self._config.node_name,
            "version": version(),
            "watchers": self.telemetry.watchers,
            "pods": pods_of(
                self._view.endpoints(),
                lambda seen: held.get(seen.owner.slot) if seen.owner else None,
                time.monotonic_ns(),
            ),
            "problems": problems,
            "warnings": list(self._warnings.lines),
            "steering": json_of(self._steering.state()) if self._steering else None,
        }

    def state(self) -> bytes:
        """What a watcher would be sent now, as JSON."""
        frame = self._view.frame(None, time.monotonic_ns())
        return json_format.MessageToJson(frame, indent=None, preserving_proto_field_name=True).encode()

    def snapshot(self) -> Snapshot:
        """The state for one scrape of the metrics."""
        slots: dict[tuple[str, str], list[SlotState]] = {}
        for place, seen in self._view.endpoints().items():
            if seen.owner is None or seen.row is None:
                continue
            histograms = self._maps.histograms(seen.owner.slot)
            state = SlotState(seen.owner, seen.row, histograms, self._survey.sockets(seen.owner))
            slots.setdefault((place.namespace, place.pod), []).append(state)
        pods = [PodState(*key, states) for key, states in slots.items()]
        devices = {(place.namespace, place.pod): seen.devices for place, seen in self._view.endpoints().items()}
        described = [PodDevices(*key, each) for key, each in devices.items()]
        steering = self._steering.state() if self._steering else None
        return Snapshot(time.monotonic_ns(), pods, self._agent_state(), described, steering)

    def _agent_state(self) -> AgentState:
        table = self._placement.table
        levels = Counter({"kernel_and_engine": 0, "kernel": 0, "engine": 0, "none": 0})
        for seen in self._view.endpoints().values():
            known = [name for name, is_known in (("kernel", seen.row), ("engine", seen.engine)) if is_known is not None]
            levels["_and_".join(known) or "none"] += 1
        return AgentState(
            drops=self._maps.counters(),
            owners_used=sum(len(held.cgroups) for held in table.held.values()),
            owners_capacity=self._maps.owners_capacity,
            slots_used=len(table.held),
            slots_retired=len(table.retired),
            slots_capacity=self._maps.capacity,
            endpoints=levels,
            rows_sampled=self._sampler.rows_sampled,
            sample_age_s=self._sampler.age_s(time.monotonic_ns()),
            watchers=self.telemetry.watchers,
            pages_read=self._pages.read,
            pages_failed=self._pages.failed,
            cpu_s=time.process_time(),
            rss_bytes=_resident_bytes(),
            programs=self._programs(),
            measurement_level=2 if Pins(self._config.pin_root).follows_calls() else 1,
            kernel_share=self._governor.share,
            shed=self._governor.shed,
            node=self._config.node_name,
            version=version(),
        )


def _keys(pods: Collection[ServingPod]) -> set[tuple[str, str]]:
    return {(pod.namespace, pod.name) for pod in pods}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
