"""Gateways for one arm of a comparison: each an Envoy and a controller with a policy, on ports of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from lab.machine import processes
from lab.machine.envoy import BodyMode
from lab.machine.stack import LISTEN_LIMIT_S, Stack, Starter
from lab.machine.substrate import Ports

LOOK_S = 0.05
LOOKS = 400


@contextlib.asynccontextmanager
async def gateways(
    stack: Stack, binary: Path, policy: str, count: int, seed: int, more: Sequence[str] = ()
) -> AsyncIterator[list[int]]:
    """Starts so many; their ports, once each answers and its controller knows the pods. Raises ProcessError.

    more: of the controllers' command lines.
    """
    ground = stack.ground
    async with contextlib.AsyncExitStack() as held:
        starter = Starter(ground, stack.home, held)
        found = []
        for number in range(count):
            ports = _ports(ground.node_ip, ground.ports)
            name = f"{policy}-{seed}-{number}"
            controller = await starter.controller(seed * 1000 + number, policy, ports, f"controller-{name}", more)
            await processes.listening(controller, ground.node_ip, ports.grpc, LISTEN_LIMIT_S)
            envoy = await starter.gateway(binary, BodyMode.FULL_DUPLEX_STREAMED, ports, f"envoy-{name}")
            await processes.listening(envoy, ground.node_ip, ports.sonde, LISTEN_LIMIT_S)
            await _knows(controller)
            found.append(ports.sonde)
        yield found


async def _knows(controller: processes.Process) -> None:
    """Until it has said that the pool is known: before that every answer is 503. Raises ProcessError."""
    for _ in range(LOOKS):
        if "synced" in controller.output.read_text(errors="replace"):
            return
        await asyncio.sleep(LOOK_S)
    raise controller.failure("did not learn the pool")


def _ports(host: str, pods: Ports) -> Ports:
    """Free ports for what a gateway needs; the pods' and the agent's stay."""
    names = ("sonde", "round_robin", "least_request", "admin", "grpc", "health", "metrics", "weights")
    with contextlib.ExitStack() as held:
        chosen = {}
        for name in names:
            probe = held.enter_context(socket.socket())
            probe.bind((host, 0))
            chosen[name] = int(probe.getsockname()[1])
    return Ports(engine=pods.engine, control=pods.control, agent=pods.agent, agent_metrics=pods.agent_metrics, **chosen)
