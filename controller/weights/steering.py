"""The weights' part of a running controller: its port, the task that looks and tells, and its end in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from agent.identity.trust import Trust
from controller.config import Config
from controller.endpoints.table import Table
from controller.starting import StartError
from controller.weights.service import Service, make_server
from controller.weights.weighing import LOOK_S, Weighing


@dataclass(slots=True)
class Steering:
    """Made by `steering`; None in its place where no port is asked for."""

    weighing: Weighing
    service: Service
    port: int
    _server: grpc.aio.Server

    async def start(self) -> None:
        await self._server.start()

    async def run(self, synced: Callable[[], bool]) -> None:
        """Goes on until cancelled. `synced`: whether the cluster was read, without which nobody is told anything."""
        while True:
            frame = self.weighing.look(time.monotonic(), synced())
            if frame is not None:
                self.service.publish(frame, self.weighing.at_s)
            await asyncio.sleep(LOOK_S)

    async def close(self, grace_s: float | None) -> None:
        """Streams end in order, so that agents turn to another controller and none sees a fault."""
        self.service.close()
        await self._server.stop(grace_s)


def steering(config: Config, table: Table, trust: Trust) -> Steering | None:
    """Opens the port, not yet serving. Raises StartError or OSError."""
    if not config.weights_port:
        return None
    if not trust.allows(config.bind):
        raise StartError(
            f"--weights-port with --bind {config.bind} needs --agent-tls-path DIR, or --agent-plain-text to serve "
            "weights in plain text"
        )
    credentials = trust.server_credentials()
    service = Service(agents_only=credentials is not None)
    server, port = make_server(service, config.bind, config.weights_port, credentials)
    return Steering(Weighing(table), service, port, server)
