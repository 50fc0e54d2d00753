"""The serving certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from controller.gateway.tls import (
    CERTIFICATE,
    KEY,
    CertificateError,
    Certificates,
    credentials,
    from_folder,
    self_signed,
)
from tests.conftest import run


def folder_with(folder: Path, key: bytes, certificate: bytes) -> Path:
    (folder / KEY).write_bytes(key)
    (folder / CERTIFICATE).write_bytes(certificate)
    return folder


def test_the_certificate_made_at_start_is_one_that_a_server_can_use(tmp_path: Path) -> None:
    folder_with(tmp_path, *self_signed())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / CERTIFICATE, tmp_path / KEY)
    assert credentials(None)


def test_no_two_certificates_are_the_same() -> None:
    serials = {x509.load_pem_x509_certificate(self_signed()[1]).serial_number for _ in range(3)}
    assert len(serials) == 3


def test_files_are_taken_as_they_are(tmp_path: Path) -> None:
    pair = self_signed()
    assert from_folder(folder_with(tmp_path, *pair)) == pair


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"tls\.key is not the key of"):
        from_folder(folder_with(tmp_path, self_signed()[0], self_signed()[1]))


@pytest.mark.parametrize(("key", "certificate", "said"), [(b"x", None, r"tls\.key"), (None, b"x", r"tls\.crt")])
def test_what_is_no_pem_is_named(tmp_path: Path, key: bytes | None, certificate: bytes | None, said: str) -> None:
    own_key, own_certificate = self_signed()
    with pytest.raises(CertificateError, match=f"{said}: no PEM"):
        from_folder(folder_with(tmp_path, key or own_key, certificate or own_certificate))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"tls\.key: No such file"):
        from_folder(tmp_path)


async def shown_at(port: int) -> bytes:
    """What a gRPC server shows to a client that takes any certificate and speaks h2."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    anyone.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anyone)
    connection = writer.get_extra_info("ssl_object")
    assert connection.selected_alpn_protocol() == "h2"
    shown = connection.getpeercert(binary_form=True)
    writer.transport.abort()
    return bytes(shown)


@asynccontextmanager
async def server(served: grpc.ServerCredentials) -> AsyncIterator[int]:
    listening = grpc.aio.server()
    port = listening.add_secure_port("127.0.0.1:0", served)
    await listening.start()
    yield port
    await listening.stop(None)


@pytest.fixture
def presented() -> Callable[[Path | None], bytes]:
    async def show(cert_path: Path | None) -> bytes:
        async with server(credentials(cert_path)) as port:
            return await shown_at(port)

    return lambda cert_path: run(show(cert_path))


def der(certificate: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.decode())


def test_new_files_are_served_without_a_restart_and_broken_ones_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = self_signed(), self_signed()
    folder_with(tmp_path, *old)

    async def body() -> None:
        certificates = Certificates(tmp_path)
        async with server(certificates.server_credentials()) as port:
            assert await shown_at(port) == der(old[1])
            folder_with(tmp_path, *new)
            assert await shown_at(port) == der(new[1])
            (tmp_path / KEY).write_bytes(b"half")
            assert await shown_at(port) == der(new[1])
            assert not certificates.refresh()
            (tmp_path / CERTIFICATE).unlink()
            assert await shown_at(port) == der(new[1])
            folder_with(tmp_path, *old)
            assert certificates.refresh()
            assert await shown_at(port) == der(old[1])

    run(body())
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    assert "tls.key: no PEM private key" in said[0]
    assert all(line.endswith("the last good one stays") for line in said)


def test_files_that_hold_the_same_are_no_news(tmp_path: Path) -> None:
    pair = self_signed()
    certificates = Certificates(folder_with(tmp_path, *pair))
    folder_with(tmp_path, *pair)

    assert not certificates.refresh()


def test_a_server_shows_the_certificate_of_its_folder(
    presented: Callable[[Path | None], bytes], tmp_path: Path
) -> None:
    pair = self_signed()
    assert presented(folder_with(tmp_path, *pair)) == ssl.PEM_cert_to_DER_cert(pair[1].decode())


def test_without_a_folder_it_shows_one_made_at_start(presented: Callable[[Path | None], bytes]) -> None:
    shown = x509.load_der_x509_certificate(presented(None))
    assert shown.issuer == shown.subject
