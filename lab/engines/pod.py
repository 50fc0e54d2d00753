"""The process of one simulated pod: an engine, its serving port, and the control port of its knobs."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack

from lab.config import EngineConfig
from lab.engines.control import ControlConnection
from lab.engines.engine import Engine
from lab.engines.serving import Server
from lab.engines.truth import Happening, Log


async def serve(config: EngineConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError if an address cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with ExitStack() as stack:
        log = None
        if config.log is not None:
            log = Log(stack.enter_context(config.log.open("a")))
        server = Server(_engine(config, log), config.pod, log, config.idle_timeout_s)
        stack.callback(server.engine.close)
        stack.callback((await server.listen(config.host, config.port)).close)
        if config.control_port is not None:
            control = await loop.create_server(
                lambda: ControlConnection(server.engine), config.host, config.control_port
            )
            stack.callback(control.close)
        await stop.wait()


def _engine(config: EngineConfig, log: Log | None) -> Engine:
    def happened(what: str) -> None:
        if log is not None:
            log.write(Happening(config.pod, what, time.monotonic_ns()))

    return Engine(config.model_name, config.model, config.knobs, happened, config.prefix_cache_tokens)
