"""Asks a running daemon for the state it serves as JSON on its metrics port. Refuses to know what the state means."""

from __future__ import annotations

import http.client
import json
from typing import Any

PATH = "/state"
TIMEOUT_S = 3.0


class NoDaemon(Exception):
    """Nothing answers, or something else does; the text says which."""


def state(address: str, daemon: str) -> dict[str, Any]:
    """The document of the daemon (its name is for the fault's text) at HOST:PORT. Raises NoDaemon."""
    try:
        status, body = _get(address)
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise NoDaemon(f"no {daemon} answers at {address} ({why}): is it running? --address names another") from error
    try:
        document = json.loads(body) if status == 200 else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NoDaemon(f"what answers at {address} is no {daemon}'s metrics port ({PATH}: status {status}, no JSON)")
    return document


def _get(address: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
