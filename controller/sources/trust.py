"""How streams between agents and controllers are opened and served: by mutual TLS, or in plain text where allowed.

Knows no frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from agent.identity import tls
from controller.model import Address

Options = Sequence[tuple[str, object]]


class Trust:
    """`files`: our certificates, None without TLS. `plain`: plain text is allowed beyond loopback."""

    def __init__(self, files: tls.Files | None = None, plain: bool = False) -> None:
        self._files = files
        self._plain = plain

    def allows(self, ip: str) -> bool:
        return self._files is not None or self._plain or tls.is_loopback(ip)

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """For what agents dial; None: plain text."""
        return tls.server_credentials(self._files) if self._files else None

    def channel(self, address: Address, options: Options) -> grpc.aio.Channel:
        """By the files of this moment, so that a rotation needs no restart."""
        if self._files is None:
            return grpc.aio.insecure_channel(address, options=options)
        credentials = tls.channel_credentials(self._files.current())
        return grpc.aio.secure_channel(address, credentials, options=(*options, *tls.CHANNEL_OPTIONS))
