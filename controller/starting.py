"""What a controller needs before it can serve: trust, the cluster's source, budgets, limits, ports.

Each is made from the configuration or ends the start with one line: StartError says why and what to do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from agent.address import address_of
from agent.cluster import folder
from agent.cluster.objects import Cluster
from agent.identity import tls as agent_tls
from agent.identity.trust import Trust
from controller.choosing.saturation import LimitError, Limits, limits
from controller.config import Config
from controller.gateway import memory
from controller.gateway.extproc import BODY_MEMORY_BYTES as MOST_BODY_MEMORY_BYTES
from controller.policies.admission import Budgets

log = logging.getLogger(__name__)


class StartError(Exception):
    """The controller cannot start; the text says why and what to do."""


def trust(config: Config) -> Trust:
    """Raises StartError."""
    try:
        files = agent_tls.Files(config.agent_tls_path) if config.agent_tls_path else None
    except agent_tls.TlsError as error:
        raise StartError(f"--agent-tls-path: {error}") from error
    return Trust(files, config.agent_plain_text)


def clusters(config: Config) -> AsyncGenerator[Cluster, None]:
    """The cluster as the folder or the API server has it. Raises StartError."""
    if config.manifests:
        return folder.watch(config.manifests)
    from agent.cluster import access, api  # the kubernetes library takes 29 MB, which a folder does not need

    try:
        server = access.find(config.kubeconfig)
    except access.AccessError as error:
        raise StartError(f"{error}; or name a folder by --manifests") from error
    log.info("watching the API server at %s", server.host)
    return api.watch_pool(server, (config.pool_group, config.pool_namespace, config.pool_name), config.agent_namespace)


def budgets(config: Config) -> Budgets:
    """Other policies' requests do not wait here: they go, or get 429 at once."""
    if config.policy != "sonde":
        return Budgets()
    return Budgets(config.slo_ttft_s or None, config.slo_tpot_s or None)


def body_memory_bytes(config: Config) -> int:
    """As told, else a quarter of what the process may use: a body is copied up to three times on its way."""
    if config.body_memory_bytes is not None:
        return config.body_memory_bytes
    allowed = memory.allowed_bytes()
    return MOST_BODY_MEMORY_BYTES if allowed is None else min(MOST_BODY_MEMORY_BYTES, allowed // 4)


def limits_of(policy: str) -> Limits:
    """Raises StartError."""
    try:
        return limits(policy, os.environ)
    except LimitError as error:
        raise StartError(str(error)) from error


def listen(
    server: grpc.aio.Server,
    servicer: health.aio.HealthServicer,
    bind: str,
    port: int,
    credentials: grpc.ServerCredentials | None,
) -> int:
    """Adds health, which gateways ask for on the picker's own port too, and the port. Raises OSError."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = address_of(bind, port)
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(
            f"cannot listen at {address} for gRPC: the port is taken or the address is another machine's"
        ) from error
    return int(bound)
