"""Mutual TLS between agent and controllers: files read and read again when they change, credentials made of them.

A folder holds ca.crt, tls.crt and tls.key, as a Secret of cert-manager or of `sonde-agent certs` does. Both ends
present a certificate of one CA that signs for Sonde alone, and each names its role, so that what one node holds opens
no other node.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
AGENT, CONTROLLER = "sonde-agent", "sonde-controller"  # DNS names in the certificates: the roles


class TlsError(Exception):
    """The files of a folder do not make an identity; the text says which is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Identity:
    """All PEM."""

    ca: bytes
    certificate: bytes
    key: bytes


def read(folder: Path) -> Identity:
    """The identity in a folder. Raises TlsError."""
    # loaded here, because an agent in plain text needs none of its memory
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    identity = Identity(*(_content(folder / name) for name in (CA, CERTIFICATE, KEY)))
    _certificate(identity.ca, folder / CA)
    certificate = _certificate(identity.certificate, folder / CERTIFICATE)
    try:
        key = serialization.load_pem_private_key(identity.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TlsError(f"{folder / KEY}: no PEM private key without password") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise TlsError(f"{folder / KEY} is not the key of {folder / CERTIFICATE}")
    return identity


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}") from error


def _certificate(pem: bytes, path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise TlsError(f"{path}: no PEM certificate") from error


class Files:
    """A folder's identity, read again when a file changes; a faulty change is said once and the last good one stays."""

    def __init__(self, folder: Path) -> None:
        """Raises TlsError."""
        self._folder = folder
        self._stamp = self._look()
        self._identity = read(folder)

    def current(self) -> Identity:
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._identity = read(self._folder)
                log.info("certificates of %s were read again", self._folder)
            except TlsError as error:
                log.warning("%s: the last good certificates stay", error)
        return self._identity

    def _look(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_stamp(self._folder / name) for name in (CA, CERTIFICATE, KEY))


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def server_credentials(files: Files) -> grpc.ServerCredentials:
    """Demands a client's certificate of our CA; each handshake is by the files of that moment."""
    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(files.current()),
        lambda: _server_configuration(files.current()),
        require_client_authentication=True,
    )


def _server_configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate)], identity.ca)


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)


def has_role(peer: Mapping[str, Sequence[bytes]], role: str) -> bool:
    """Whether a verified peer's certificate (gRPC's auth context) names this role."""
    return role.encode() in peer.get("x509_subject_alternative_name", ())


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
