"""What `sonde-agent run` needs to start, made of its command line; what cannot be had is one line that says why."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from agent.cluster import folder
from agent.cluster.objects import Cluster
from agent.config import RunConfig
from agent.identity import tls
from agent.kernel.cgroups import NoCgroup2
from agent.kernel.cgroups import root as mounted_root
from agent.kernel.pins import Pins
from agent.kernel.steer_pins import SteerPins

if TYPE_CHECKING:
    from agent.cluster.watching import Health
    from agent.steering.steering import Steering

log = logging.getLogger(__name__)

Clusters = AsyncGenerator[Cluster, None]


class StartError(Exception):
    """The agent cannot start; the text says why and what to do."""


def credentials(config: RunConfig) -> grpc.ServerCredentials | None:
    """None for plain text, which is for loopback unless the flag says otherwise. Raises StartError."""
    try:
        if config.tls_path:
            return tls.server_credentials(tls.Files(config.tls_path))
    except tls.TlsError as error:
        raise StartError(f"--tls-path: {error}") from error
    if not config.plain_text and not tls.is_loopback(config.bind):
        raise StartError(f"--bind {config.bind} needs --tls-path DIR (see sonde-agent certs), or --plain-text")
    return None


def steering(config: RunConfig) -> Steering | None:
    """None where the programs that steer are not loaded and not asked for. Raises NotLoaded, OSError or StartError."""
    asked = bool(config.weights_from or config.balance_services)
    if config.without_kernel and asked:
        raise StartError("--weights-from and --balance-services are for the kernel, which --without-kernel leaves out")
    if config.without_kernel or not (asked or SteerPins(Pins(config.pin_root)).loaded()):
        return None
    from agent.steering.opening import open_steering  # most nodes steer nothing

    try:
        return open_steering(config)
    except tls.TlsError as error:
        raise StartError(f"--tls-path: {error}") from error


def clusters(
    config: RunConfig, look: Callable[[Mapping[str, Health]], None], steers: Steering | None = None
) -> Clusters:
    """What there is, from the folder or from the API server. Raises StartError."""
    if config.manifests:
        return folder.watch(config.manifests)
    from agent.cluster import access, api  # the kubernetes library takes 29 MB, which a folder does not need

    try:
        server = access.find(config.kubeconfig)
        kubelet = access.of_kubelet(config.kubelet, config.kubelet_ca, config.kubeconfig) if config.kubelet else None
    except access.AccessError as error:
        raise StartError(f"{error}; or name a folder by --manifests") from error
    log.info("watching the API server at %s", server.host)
    services = steers.services if steers else lambda _: set()
    return api.watch_node(server, config.node_name, config.namespaces, look=look, kubelet=kubelet, services=services)


def cgroup_root(given: Path | None) -> Path:
    """Raises NoCgroup2."""
    root = given or mounted_root()
    # every cgroup v2 directory has this file, none of v1 has
    if not (root / "cgroup.controllers").exists():
        raise NoCgroup2(f"{root} is no cgroup v2 hierarchy: name one by --cgroup-root")
    return root
