"""Turning an engine's knobs over HTTP: on its serving port, or on a port of its own."""

from __future__ import annotations

import asyncio
import json
import os
from typing import cast

from lab.engines import http1, knobs
from lab.engines.engine import Engine

KNOBS = "/lab/knobs"


class ControlConnection(asyncio.Protocol):
    """The knobs on a port of their own, so that no kernel count of the serving port sees a turn."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = http1.Reader(responses=False)
        self._body = b""
        self._start = ("", "", "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._reader.feed(data):
                if isinstance(event, http1.Head):
                    self._start, self._body = event.first, b""
                elif isinstance(event, http1.Data):
                    self._body += event.payload
                else:
                    self._answer()
        except http1.FramingError:
            self._transport.close()

    def _answer(self) -> None:
        status, body = turn_knobs(self._engine, self._start, self._body)
        self._transport.write(http1.response_head(status, "application/json", len(body)) + body)


def turn_knobs(engine: Engine, start: tuple[str, str, str], body: bytes) -> tuple[int, bytes]:
    """Obeys POST /lab/knobs; GET tells how they stand."""
    if start[1] != KNOBS:
        return 404, b'{"detail":"Not Found"}'
    if start[0] == "POST":
        try:
            turned = knobs.turn(engine.knobs, body)
        except knobs.KnobError as error:
            return 400, json.dumps({"error": str(error)}).encode()
        if turned.crash:
            os._exit(137)  # as the out-of-memory killer ends an engine: no answer, no clean-up
        engine.knobs = turned.knobs
        if turned.hang_s is not None:
            engine.hang(turned.hang_s)
    return 200, json.dumps(knobs.describe(engine.knobs)).encode()
