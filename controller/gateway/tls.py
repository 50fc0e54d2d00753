"""The serving certificate: one given as files, read again when they change, or one made at start that nobody can verify
but that encrypts.
"""

from __future__ import annotations

import datetime
import logging
import threading
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

log = logging.getLogger(__name__)

CERTIFICATE = "tls.crt"  # as in Kubernetes secrets of type kubernetes.io/tls
KEY = "tls.key"
LIFE = datetime.timedelta(days=3650)


class CertificateError(Exception):
    """The files of --cert-path are not a key and its certificate; the text says which is missing or wrong."""


def self_signed() -> tuple[bytes, bytes]:
    """A new P-256 key and its certificate, both PEM. Gateways do not verify pickers' certificates."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sonde")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, certificate.public_bytes(serialization.Encoding.PEM)


def from_folder(folder: Path) -> tuple[bytes, bytes]:
    """Key and certificate chain of a folder. Raises CertificateError."""
    key_pem, certificate_pem = _read(folder / KEY), _read(folder / CERTIFICATE)
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{folder / KEY}: no PEM private key without password: {error}") from error
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise CertificateError(f"{folder / CERTIFICATE}: no PEM certificate: {error}") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise CertificateError(f"{folder / KEY} is not the key of {folder / CERTIFICATE}")
    return key_pem, certificate_pem


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from error


class Certificates:
    """What is served, kept the same as the files: a change is seen with the next connection or the next `refresh`.

    gRPC asks from threads of its own, hence the lock. A pair that is no good, or half written, leaves the last good one
    in place and is logged once.
    """

    def __init__(self, folder: Path) -> None:
        """Raises CertificateError."""
        self._folder = folder
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._pair = from_folder(folder)

    def refresh(self) -> bool:
        """Looks at the files; whether another pair is served from now on."""
        with self._lock:
            signature = self._signature()
            if signature == self._seen:
                return False
            self._seen = signature
            try:
                pair = from_folder(self._folder)
            except CertificateError as error:
                log.error("certificate: %s; the last good one stays", error)
                return False
            if pair == self._pair:
                return False
            self._pair = pair
            log.info("certificate: %s read again", self._folder)
            return True

    def server_credentials(self) -> grpc.ServerCredentials:
        served = self._pair

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """None: no change since the last call."""
            nonlocal served
            self.refresh()
            if self._pair is served:
                return None
            served = self._pair
            return grpc.ssl_server_certificate_configuration([served])

        return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([served]), fetch)

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Tells one state of the files from the next; through links, as Kubernetes swaps secrets by one."""
        return tuple(_stat(self._folder / name) for name in (CERTIFICATE, KEY))


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def credentials(cert_path: Path | None) -> grpc.ServerCredentials:
    """Server credentials that stay as they are; gRPC offers h2 by ALPN itself. Raises CertificateError."""
    return grpc.ssl_server_credentials([from_folder(cert_path) if cert_path else self_signed()])
