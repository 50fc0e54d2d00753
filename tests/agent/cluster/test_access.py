"""The pod's service account over TLS: the files that kubelet mounts, and a token that it replaces."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes import client
from kubernetes.config import incluster_config

from agent.cluster import access, http
from agent.cluster.mirror import Key
from agent.cluster.objects import Object
from agent.cluster.watching import Collection, Pace, Watching
from tests.apiserver import ApiServer, Fault, serving
from tests.kube import pod, until

PACE = Pace(first_s=0.01, most_s=0.05, list_read_s=5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key").write_bytes(key.private_bytes(*form))
    with serving(token="first", tls=(tmp_path / "ca.crt", tmp_path / "key")) as running:
        yield running


@pytest.fixture
def in_cluster(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a container, and the files of its service account."""
    (tmp_path / "token").write_text("first")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def test_a_pod_reaches_the_api_server_by_its_service_account(
    server: ApiServer, in_cluster: dict[str, str], tmp_path: Path
) -> None:
    server.put(pod("a"))
    door = access.find(environ=in_cluster)
    assert door.host == server.url
    assert len(http.get(door, "/api/v1/pods", 5)["items"]) == 1


def test_a_token_that_kubelet_replaced_is_read_when_the_old_one_is_refused(
    server: ApiServer, in_cluster: dict[str, str], tmp_path: Path
) -> None:
    known: dict[Key, Object] = {}

    def take(changes: dict[Key, Object | None], _whole: bool) -> None:
        known.update({key: value for key, value in changes.items() if value})

    one = Watching(access.find(environ=in_cluster), Collection("v1", "Pod", "pods"), take, PACE, Random(1))
    one.start()
    try:
        until(lambda: one.health.watches)
        (tmp_path / "token").write_text("second")
        server.token = "second"
        server.faults.append(Fault(fits="watch=1", end=True))
        server.store.compact()
        server.put(pod("b"))
        until(lambda: ("default", "b") in known)
    finally:
        one.stop()
        one.join(5)


def test_a_token_that_is_empty_for_a_moment_is_asked_for_again(
    server: ApiServer, in_cluster: dict[str, str], tmp_path: Path
) -> None:
    def configure() -> client.Configuration:
        configuration = client.Configuration()
        files = (str(tmp_path / "token"), str(tmp_path / "ca.crt"))
        loader = incluster_config.InClusterConfigLoader(*files, environ=in_cluster)
        loader._token_refresh_period = datetime.timedelta(0)  # else it reads the file each minute
        loader.load_and_set(configuration)
        return configuration

    door = access.Access(configure)
    (tmp_path / "token").write_text("")
    with pytest.raises(http.ApiError, match="no credentials: Token file exists but empty"):
        http.get(door, "/api/v1/pods", 5)
    (tmp_path / "token").write_text("first\n")  # as an editor or a shell leaves it
    assert http.get(door, "/api/v1/pods", 5)["items"] == []


def test_a_server_of_another_ca_is_no_server(server: ApiServer, in_cluster: dict[str, str], tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(other.public_key()).serial_number(2)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1)).sign(other, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    door = access.find(environ=in_cluster)
    with pytest.raises(http.ApiError, match=r"certificate|CERTIFICATE|SSL"):
        http.get(door, "/api/v1/pods", 5)


def test_a_service_account_without_a_token_is_one_line(in_cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(access.AccessError, match="the pod's service account") as fault:
        access.find(environ=in_cluster)
    assert "\n" not in str(fault.value)
