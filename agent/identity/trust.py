"""How streams between agents and controllers are opened and served: by mutual TLS, or in plain text where allowed.

Knows no frames. Both sides serve streams and both dial; what each must show of itself is the same either way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from agent.address import address_of
from agent.identity import tls

log = logging.getLogger(__name__)

Options = Sequence[tuple[str, object]]

DIALLING: Options = (
    ("grpc.enable_http_proxy", 0),
    # our own back-off is the only one: gRPC's would wait up to two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_SERVING: Options = (
    ("grpc.so_reuseport", 0),  # a second one on the port must fail, not share it
    ("grpc.keepalive_time_ms", 10_000),  # a watcher whose node died is found out and forgotten
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # watchers may ask as often whether we live
)


class Trust:
    """`files`: our certificates, None without TLS. `plain`: plain text is allowed beyond loopback."""

    def __init__(self, files: tls.Files | None = None, plain: bool = False) -> None:
        self._files = files
        self._plain = plain

    def allows(self, ip: str) -> bool:
        return self._files is not None or self._plain or tls.is_loopback(ip)

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """None: plain text."""
        return tls.server_credentials(self._files) if self._files else None

    def channel(self, address: str, role: str, options: Options = ()) -> grpc.aio.Channel:
        """To whoever has a certificate of this role; by the files of this moment, so that a rotation needs no restart.

        Raises TlsError.
        """
        options = (*DIALLING, *options)
        if self._files is None:
            return grpc.aio.insecure_channel(address, options=options)
        # peers are reached by addresses of pods, which no certificate can know
        options = (*options, ("grpc.ssl_target_name_override", role))
        return grpc.aio.secure_channel(address, tls.channel_credentials(self._files.current()), options=options)


def make_server(
    add: Callable[[grpc.aio.Server], None],
    bind: str,
    port: int,
    what: str,
    credentials: grpc.ServerCredentials | None = None,
) -> tuple[grpc.aio.Server, int]:
    """A server that is not started yet, and its port. `add` puts the service on it. Raises OSError."""
    server = grpc.aio.server(options=_SERVING)
    add(server)
    address = address_of(bind, port)
    try:
        if credentials is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen at {address} for {what}: {error}") from error


async def refuse_others(context: grpc.aio.ServicerContext, role: str, what: str) -> None:
    """Ends the call of a peer whose certificate, which TLS itself has verified, is not of this role."""
    if not tls.has_role(context.auth_context(), role):
        log.warning("%s refused, no certificate of %s peer=%s", what, role, context.peer())
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"a certificate of {role} is needed")
