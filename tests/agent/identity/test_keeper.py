"""`sonde-agent certs`: folders, printed Secrets, and Secrets kept through an API server."""

from __future__ import annotations

import base64
import datetime
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.cluster import access, http
from agent.config import CertsConfig
from agent.identity import keeper, tls
from agent.identity.certificates import LIFE, RENEW_LEFT
from tests.apiserver import ApiServer, Fault, serving
from tests.kube import kubeconfig

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
CONFIG = CertsConfig(None, True, "sonde-system", ("default", "prod"), None)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving(token="t") as running:
        yield running


def held(server: ApiServer) -> dict[tuple[str, str], Any]:
    return {key[1:]: value for key, value in server.store.objects.items() if key[0] == "/api/v1/secrets"}


def keep(server: ApiServer, folder: Path, now: datetime.datetime) -> None:
    keeper.keep(CONFIG, access.find(kubeconfig(folder, server.url, "t")), lambda: now)


def test_secrets_are_made_once_and_renewed_before_they_end(server: ApiServer, tmp_path: Path) -> None:
    keep(server, tmp_path, NOW)
    first = held(server)
    assert set(first) == {
        ("sonde-system", "sonde-ca"), ("sonde-system", "sonde-agent-tls"),
        ("default", "sonde-controller-tls"), ("prod", "sonde-controller-tls"),
    }  # fmt: skip
    keep(server, tmp_path, NOW + LIFE - RENEW_LEFT - datetime.timedelta(days=1))
    assert held(server) == first
    keep(server, tmp_path, NOW + LIFE - RENEW_LEFT + datetime.timedelta(days=1))
    third = held(server)
    changed = {key for key in first if first[key]["data"] != third[key]["data"]}
    assert changed == set(first) - {("sonde-system", "sonde-ca")}
    assert {value["data"][tls.CA] for value in third.values()} == {first["sonde-system", "sonde-ca"]["data"][tls.CA]}


def test_what_is_in_a_secret_is_an_identity(server: ApiServer, tmp_path: Path) -> None:
    keep(server, tmp_path, NOW)
    for key, value in held(server).items():
        folder = tmp_path / "-".join(key)
        folder.mkdir()
        for name, text in value["data"].items():
            (folder / name).write_bytes(base64.b64decode(text))
        tls.read(folder)
        assert value["type"] == "Opaque"


@pytest.mark.parametrize("data", [None, {}, {tls.CA: "no base64!"}, {tls.CA: 7}, "text"])
def test_a_secret_that_is_not_whole_is_made_again(server: ApiServer, tmp_path: Path, data: Any) -> None:
    broken = keeper.secret("default", "sonde-controller-tls", {}) | {"data": data}
    server.put(broken)
    keep(server, tmp_path, NOW)
    assert len(held(server)["default", "sonde-controller-tls"]["data"]) == 3


def test_a_ca_without_its_key_is_not_replaced_behind_the_back_of_those_who_trust_it(
    server: ApiServer, tmp_path: Path
) -> None:
    server.put(keeper.secret("sonde-system", "sonde-ca", {tls.CA: b"x"}))
    with pytest.raises(http.ApiError, match="delete it"):
        keep(server, tmp_path, NOW)


def test_secrets_that_manifests_made_empty_are_filled_without_the_right_to_create(
    server: ApiServer, tmp_path: Path
) -> None:
    for namespace, name in (
        ("sonde-system", "sonde-ca"), ("sonde-system", "sonde-agent-tls"),
        ("default", "sonde-controller-tls"), ("prod", "sonde-controller-tls"),
    ):  # fmt: skip
        server.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}})
    server.faults.append(Fault(fits="POST", status=403, once=False))
    keep(server, tmp_path, NOW)
    assert all(len(value["data"]) == 3 for value in held(server).values())


def test_of_two_keepers_one_makes_the_ca(server: ApiServer, tmp_path: Path) -> None:
    server.faults.append(Fault(fits="POST /api/v1/namespaces/sonde-system/secrets", status=409))
    with pytest.raises(http.ApiError, match="409"):
        keep(server, tmp_path, NOW)
    keep(server, tmp_path, NOW)
    assert len({value["data"][tls.CA] for value in held(server).values()}) == 1


def test_a_server_that_refuses_is_an_error_and_nothing_is_half_made(server: ApiServer, tmp_path: Path) -> None:
    server.faults.append(Fault(fits="POST /api/v1/namespaces/sonde-system/secrets", status=403))
    with pytest.raises(http.ApiError, match="403"):
        keep(server, tmp_path, NOW)
    assert held(server) == {}
    keep(server, tmp_path, NOW)
    assert len(held(server)) == 4


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "certs", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_one_command_writes_folders_or_prints_secrets(tmp_path: Path) -> None:
    assert command("--out", str(tmp_path / "c")).returncode == 0
    for role in ("agent", "controller"):
        tls.read(tmp_path / "c" / role)
    printed = command("--controller-namespaces", "a,b")
    names = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in yaml.safe_load_all(printed.stdout)]
    assert names == [
        ("sonde-system", "sonde-ca"), ("sonde-system", "sonde-agent-tls"),
        ("a", "sonde-controller-tls"), ("b", "sonde-controller-tls"),
    ]  # fmt: skip
    failed = command("--out", "/proc/nowhere")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


def test_a_ca_that_is_there_signs_again(tmp_path: Path) -> None:
    keeper.write_folders(tmp_path, NOW)
    first = tls.read(tmp_path / "agent")
    keeper.write_folders(tmp_path, NOW)
    second = tls.read(tmp_path / "agent")
    assert first.ca == second.ca
    assert first.certificate != second.certificate
