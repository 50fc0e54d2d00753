"""`sonde-controller`: wires the parts together, starts them and ends them in order.

Tasks, all on one event loop: `cluster` follows the manifests; `agent IP:PORT`, one for each agent, follows its
stream; `engines` reads pages nobody else reads; `live` makes what the live page shows. gRPC servers run beside them,
the metrics port on threads of its own.
The life's end, on SIGTERM or SIGINT: readiness turns not-serving, and all goes on for --drain-delay, so that gateways
stop sending before anything is refused; then the ext_proc server takes no new streams and ends those whose request is
settled, the others get --drain-timeout; then the tasks are cancelled, and the health and metrics servers close. A
second signal ends at once.

Readiness: the pool is known. Liveness: the event loop answers, since health is served on it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import grpc.aio
import msgspec
from grpc_health.v1 import health, health_pb2

from agent.address import address_of
from agent.cluster.objects import Cluster
from agent.engines.places import Told
from agent.identity.trust import Trust
from controller.assembly import answering, pages_of, plugins_of
from controller.choosing.admission import PAGE_POLICIES
from controller.choosing.picker import Picker
from controller.config import Config
from controller.endpoints.table import Table
from controller.exporting.counts import Counts
from controller.exporting.metrics import ControllerPage
from controller.exporting.snapshot import Snapshot, Totals, snapshot
from controller.gateway import extproc, tls
from controller.looking import document, web
from controller.looking.live import Board, Live
from controller.model import Address, ClusterChanged, Event
from controller.sources.agents import Agents
from controller.sources.engines import Engines
from controller.starting import StartError, clusters, listen, trust
from controller.weights.steering import Steering, steering

log = logging.getLogger(__name__)
T = TypeVar("T")

CERTIFICATE_LOOK_S = 1.0
SNAPSHOT_LIMIT_S = 2.0
WEIGHTS_GRACE_S = 1.0  # for streams of weights to end in order
BUSY_S = 1.0  # requests came within so long

LIVENESS = "liveness"
# The names that the field's gateways, charts and probes ask for; "" is the server as a whole.
READINESS = ("", "readiness", "inference-extension", extproc.SERVICE)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a started controller serves."""

    grpc: int
    health: int
    metrics: int
    weights: int | None = None  # None: it serves none


async def run(
    config: Config,
    stop: asyncio.Event,
    started: Callable[[Ports], None] = lambda _: None,
    hurry: asyncio.Event | None = None,
) -> None:
    """Serves until `stop` is set, then drains until done or `hurry` is set. Raises StartError."""
    with ExitStack() as resources:
        controller = _Controller(config)
        ports = await controller.start(resources)
        started(ports)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = controller.work(group)
                await stop.wait()
                log.info("stopping")
                await controller.drain(hurry or asyncio.Event())
                for task in tasks:
                    task.cancel()
        finally:
            await controller.close()
    log.info("stopped")


async def run_until_signal(config: Config) -> None:
    """Serves until SIGTERM or SIGINT; a second one ends the drain. Raises StartError."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await run(config, stop, hurry=hurry)


@dataclass(slots=True)
class _Controller:
    config: Config
    table: Table = field(init=False)
    picker: Picker = field(init=False)
    processor: extproc.ExternalProcessor = field(init=False)
    rng: Random = field(init=False)
    counts: Counts = field(default_factory=Counts)
    health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)
    board: Board = field(default_factory=Board)
    agents: Agents | None = None
    engines: Engines | None = None
    synced: bool | None = None  # None: the cluster has not been read yet
    draining: bool = False
    _certificates: tls.Certificates | None = None
    _clusters: AsyncGenerator[Cluster, None] | None = None
    _trust: Trust = field(default_factory=Trust)
    _distrusted: set[str] = field(default_factory=set)
    _steering: Steering | None = None
    _pages: Told | None = None
    _server: grpc.aio.Server | None = None
    _health_server: grpc.aio.Server | None = None
    _turns: tuple[int, float] = (0, -1e9)  # the picker's turn when last looked at, and since when it is that

    def __post_init__(self) -> None:
        config = self.config
        self.rng = Random(config.seed)
        self.table = Table(config.pool_group, config.pool_namespace, config.pool_name)
        given = plugins_of(config)
        self.picker, self.processor = answering(config, given, self.table, self.rng, self.counts)
        self._pages = pages_of(config, given)

    async def start(self, resources: ExitStack) -> Ports:
        """Opens the ports. Raises StartError."""
        config = self.config
        await self._set_health()
        self._clusters, self._trust = clusters(config), trust(config)
        try:
            self._server = grpc.aio.server(options=extproc.OPTIONS)
            self._server.add_generic_rpc_handlers((self.processor.handler(),))
            credentials = self._credentials() if config.secure_serving else None
            grpc_port = listen(self._server, self.health, config.bind, config.grpc_port, credentials)
            self._health_server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
            health_port = listen(self._health_server, self.health, config.bind, config.grpc_health_port, None)
            self._steering = steering(config, self.table, self._trust)
            loop = asyncio.get_running_loop()
            page = ControllerPage(lambda: _ask(loop, self._snapshot)).page
            pages = web.Pages(
                lambda: msgspec.json.encode(_ask(loop, self._document)),
                self.board if config.ui else None,
                (lambda: msgspec.json.encode(_ask(loop, self.picker.explainer.latest)))
                if config.explain_sample
                else None,
            )
            metrics_port, close = web.serve(page, config.metrics_bind or config.bind, config.metrics_port, pages)
            resources.callback(close)
        except (OSError, RuntimeError, tls.CertificateError) as error:
            raise StartError(str(error)) from error
        await self._server.start()
        await self._health_server.start()
        if self._steering:
            await self._steering.start()
        weights_port = self._steering.port if self._steering else None
        log.info(
            "serving pool=%s/%s ext_proc=%d tls=%s health=%d metrics=%d weights=%s policy=%s ui=%s",
            config.pool_namespace,
            config.pool_name,
            grpc_port,
            config.secure_serving,
            health_port,
            metrics_port,
            weights_port or "off",
            config.policy,
            config.ui,
        )
        return Ports(grpc_port, health_port, metrics_port, weights_port)

    def _credentials(self) -> grpc.ServerCredentials:
        """Raises CertificateError."""
        if self.config.cert_path is None or not self.config.cert_reload:
            return tls.credentials(self.config.cert_path)
        self._certificates = tls.Certificates(self.config.cert_path)
        return self._certificates.server_credentials()

    def work(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Starts the eternal tasks."""
        subscriber = f"{self.config.pool_namespace}/{self.config.pool_name}"
        self.agents = Agents(group, self._emit, subscriber, self.rng, self._trust)
        self.engines = Engines(
            self.table,
            self._emit,
            self.config.refresh_metrics_interval_s,
            self.rng,
            self._is_busy,
            reads_all=self.config.policy in PAGE_POLICIES,
            told=self._pages,
        )
        work: dict[str, Coroutine[Any, Any, None]] = {
            "cluster": self._follow_cluster(),
            "engines": self.engines.run(),
        }
        if self.config.ui:
            work["live"] = Live(self._document, self.board).run()
        if self._steering:
            work["weights"] = self._steering.run(lambda: self.synced is not None)
        if self._certificates:
            work["certificates"] = _look_at(self._certificates)
        return [group.create_task(task, name=name) for name, task in work.items()]

    async def drain(self, hurry: asyncio.Event) -> None:
        """Lets gateways notice, then lets every request that came get its endpoint, and takes no new ones."""
        self.draining = True
        await self._set_health()
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait({hurried}, timeout=self.config.drain_delay_s)
        assert self._server is not None
        stopping = asyncio.ensure_future(self._server.stop(self.config.drain_timeout_s))
        self.processor.drain()
        await asyncio.wait({hurried, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if hurry.is_set():
            log.info("a second signal: ending at once")
            await self._server.stop(None)
        await stopping
        hurried.cancel()
        if self._steering:
            await self._steering.close(WEIGHTS_GRACE_S)
        if self.agents:
            self.agents.close()

    async def close(self) -> None:
        self.board.close()
        if self._steering:
            await self._steering.close(None)
        for server in (self._server, self._health_server):
            if server:
                await server.stop(None)

    async def _follow_cluster(self) -> None:
        assert self._clusters is not None
        async with aclosing(self._clusters) as clusters:
            async for cluster in clusters:
                self._apply_cluster(cluster)
                await self._set_health()

    def _apply_cluster(self, cluster: Cluster) -> None:
        self._emit(ClusterChanged(cluster), time.monotonic())
        if self.agents:
            self.agents.reconcile(self._agents_of(cluster))
        synced = self.table.pool is not None
        if synced == self.synced:
            return
        self.synced = synced
        name = f"{self.config.pool_namespace}/{self.config.pool_name}"
        if synced:
            log.info("pool %s: synced, %d endpoints", name, len(self.table.rows))
        else:
            log.warning("pool %s of %s: is not there; every request gets 503", name, self.config.pool_group)

    async def _set_health(self) -> None:
        """Ready as soon as the pool is known, whether it has endpoints or not: then 503 is the right answer."""
        await self.health.set(LIVENESS, SERVING)
        for name in READINESS:
            await self.health.set(name, SERVING if self.synced and not self.draining else NOT_SERVING)

    def _agents_of(self, cluster: Cluster) -> list[Address]:
        """The agents of the nodes that the pool's pods are on: in a big cluster the others have nothing to say."""
        pool = self.table.pool
        nodes = {pod.node for pod in cluster.pods_of(pool)} if pool else set()
        near = [pod for pod in cluster.agents() if pod.node is None or pod.node in nodes]
        self._note_distrusted({pod.ip for pod in near if pod.ip and not self._trust.allows(pod.ip)})
        return [address_of(pod.ip, self.config.agent_port) for pod in near if pod.ip and self._trust.allows(pod.ip)]

    def _note_distrusted(self, ips: set[str]) -> None:
        for ip in sorted(ips - self._distrusted):
            log.warning(
                "agent %s is not followed: give --agent-tls-path, or allow plain text by --agent-plain-text", ip
            )
        self._distrusted = ips

    def _emit(self, event: Event, now: float) -> None:
        self.table.apply(event, now)
        self.picker.prepare(now)

    def _is_busy(self) -> bool:
        now = time.monotonic()
        turn, since = self._turns
        if self.picker.turn != turn:
            self._turns = (self.picker.turn, now)
            return True
        return now - since < BUSY_S

    def _snapshot(self) -> Snapshot:
        return snapshot(self.table, self._totals(), self.counts.view(), time.monotonic(), self._weights())

    def _weights(self) -> list[float] | None:
        told = self._steering.weighing.weights() if self._steering else None
        return None if told is None else told.tolist()

    def _document(self) -> document.Document:
        config = self.config
        summary = document.Summary(
            config.pool_namespace,
            config.pool_name,
            known=self.table.pool is not None,
            policy=config.policy,
            picks=self.picker.turn,
            exchanges_open=self.processor.open,
            agents_connected=self.agents.traffic.connected if self.agents else 0,
            price_unit=document.SECONDS if config.policy == "sonde" else document.REQUESTS,
        )
        now = time.monotonic()
        return document.document(self.table, self.picker.ranks(now), self.picker.last, summary, now, self._weights())

    def _totals(self) -> Totals:
        traffic = self.agents.traffic if self.agents else None
        scrapes = self.engines.scrapes if self.engines else None
        return Totals(
            exchanges_open=self.processor.open,
            waiting=self.processor.room.waiting,
            body_bytes=self.processor.bodies.held_bytes,
            bodies_dropped=self.processor.bodies.dropped,
            agents_known=self.agents.known if self.agents else 0,
            agents_connected=traffic.connected if traffic else 0,
            frames=traffic.frames if traffic else 0,
            agent_reconnects=traffic.reconnects if traffic else 0,
            scrapes_good=scrapes.good if scrapes else 0,
            scrapes_failed=scrapes.failed if scrapes else 0,
            weight_watchers=self._steering.service.watchers if self._steering else 0,
            weight_frames=self._steering.service.frames if self._steering else 0,
            weight_moves=self._steering.weighing.scale.moves if self._steering else 0,
        )


def _ask(loop: asyncio.AbstractEventLoop, make: Callable[[], T]) -> T:
    """What `make` says, for a thread of the metrics port; made by the loop, which owns the table."""

    async def answer() -> T:
        return make()

    return asyncio.run_coroutine_threadsafe(answer(), loop).result(timeout=SNAPSHOT_LIMIT_S)


async def _look_at(certificates: tls.Certificates) -> None:
    """So that a faulty file is in the log before a gateway next connects."""
    while True:
        await asyncio.sleep(CERTIFICATE_LOOK_S)
        certificates.refresh()
