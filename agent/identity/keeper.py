"""`sonde-agent certs`: puts the certificates of agents and controllers into files, onto the screen, or into Secrets.

`--out DIR` writes a folder for each role. `--print` prints Secrets for `kubectl apply -f -`. `--keep` makes the Secrets
through the API server and renews them before they end, for as long as it runs. An existing CA and certificates that
are good for longer stay.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.config import CertsConfig
from agent.identity import tls
from agent.identity.certificates import Authority, is_due, make_authority, make_identity
from agent.identity.tls import Identity

log = logging.getLogger(__name__)

CA_SECRET = "sonde-ca"  # the CA with its key: only the keeper reads it
CHECK_S = 3600.0
RETRY_S = 5.0
Json = dict[str, Any]
Clock = Callable[[], datetime.datetime]


def main(config: CertsConfig) -> int:
    """Returns the exit status."""
    try:
        if config.out:
            write_folders(config.out, _now())
        elif config.keep:
            keep_until_signal(config)
        else:
            sys.stdout.write(yaml.safe_dump_all(secrets(config, _now()), sort_keys=False))
    except OSError as error:
        sys.stderr.write(f"sonde-agent certs: {error.filename}: {error.strerror}\n")
        return 1
    return 0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def write_folders(out: Path, now: datetime.datetime) -> None:
    """ca/, agent/ and controller/; a CA that is there signs again. Raises OSError."""
    held = [out / "ca" / name for name in (tls.CERTIFICATE, tls.KEY)]
    if all(path.exists() for path in held):
        authority = Authority(held[0].read_bytes(), held[1].read_bytes())
    else:
        authority = make_authority(now)
        _write(out / "ca", {tls.CERTIFICATE: authority.certificate, tls.KEY: authority.key})
    for folder, role in (("agent", tls.AGENT), ("controller", tls.CONTROLLER)):
        _write(out / folder, _files(make_identity(authority, role, now)))
    log.info("certificates are in %s/agent and %s/controller; keep %s/ca apart from both", out, out, out)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        part = folder / f".{name}.part"
        part.touch(mode=0o600)
        part.write_bytes(content)
        os.replace(part, folder / name)


def _files(identity: Identity) -> dict[str, bytes]:
    return {tls.CA: identity.ca, tls.CERTIFICATE: identity.certificate, tls.KEY: identity.key}


def secrets(config: CertsConfig, now: datetime.datetime) -> list[Json]:
    """The Secrets of a new CA, as documents."""
    authority = make_authority(now)
    wanted = [secret(config.namespace, CA_SECRET, _authority_files(authority))]
    for namespace, name, role in _places(config):
        wanted.append(secret(namespace, name, _files(make_identity(authority, role, now))))
    return wanted


def _places(config: CertsConfig) -> list[tuple[str, str, str]]:
    """Namespace and name of each Secret, and the role it is for."""
    controllers = [(namespace, "sonde-controller-tls", tls.CONTROLLER) for namespace in config.controller_namespaces]
    return [(config.namespace, "sonde-agent-tls", tls.AGENT), *controllers]


def _authority_files(authority: Authority) -> dict[str, bytes]:
    return {tls.CA: authority.certificate, tls.CERTIFICATE: authority.certificate, tls.KEY: authority.key}


def secret(namespace: str, name: str, files: Mapping[str, bytes]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",  # a manifest may have made it empty, which kubernetes.io/tls forbids
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "sonde"}},
        "data": {key: base64.b64encode(value).decode() for key, value in files.items()},
    }


def keep_until_signal(config: CertsConfig) -> None:
    """Keeps the Secrets until SIGTERM or SIGINT; what fails is said and tried again."""
    from agent.cluster import access, http

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    door = access.find(config.kubeconfig)
    problem = ""
    while not stop.is_set():
        try:
            keep(config, door, _now)
            problem = ""
        except http.ApiError as error:
            if str(error) != problem:
                log.warning("Secrets cannot be kept: %s; trying on", error)
            problem = str(error)
        stop.wait(RETRY_S if problem else CHECK_S)


@dataclass(frozen=True, slots=True)
class Held:
    """What the API server has of a Secret."""

    version: str  # "": there is none
    empty: bool  # made by a manifest, not filled yet
    files: dict[str, bytes] | None  # None: not all of them, or no base64


def keep(config: CertsConfig, door: Any, clock: Clock) -> None:
    """Makes what is missing or ends soon. Raises ApiError."""
    now = clock()
    authority = _authority(config, door, now)
    for namespace, name, role in _places(config):
        held = _held(door, namespace, name)
        files = held.files
        identity = Identity(files[tls.CA], files[tls.CERTIFICATE], files[tls.KEY]) if files else None
        if is_due(identity, authority, now):
            _put(door, secret(namespace, name, _files(make_identity(authority, role, now))), held.version)
            log.info("certificate is new secret=%s/%s", namespace, name)


def _authority(config: CertsConfig, door: Any, now: datetime.datetime) -> Authority:
    """The CA in its Secret. Of two keepers that make it at once one is refused, and takes the other's the next time."""
    from agent.cluster import http

    held = _held(door, config.namespace, CA_SECRET)
    if held.files:
        return Authority(held.files[tls.CERTIFICATE], held.files[tls.KEY])
    if not held.empty:  # others may trust what is left of it
        raise http.ApiError(f"Secret {config.namespace}/{CA_SECRET} lacks {tls.CERTIFICATE} or {tls.KEY}: delete it")
    authority = make_authority(now)
    _put(door, secret(config.namespace, CA_SECRET, _authority_files(authority)), held.version)
    return authority


def _held(door: Any, namespace: str, name: str) -> Held:
    from agent.cluster import http

    try:
        found = http.get(door, f"/api/v1/namespaces/{namespace}/secrets/{name}", http.CALL_S)
    except http.ApiError as error:
        if error.status == http.NOT_FOUND:
            return Held("", True, None)
        raise
    data, metadata = found.get("data"), found.get("metadata")
    version = str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""
    return Held(version, not data, _decoded(data))


def _decoded(data: Any) -> dict[str, bytes] | None:
    try:
        return {key: base64.b64decode(data[key], validate=True) for key in (tls.CA, tls.CERTIFICATE, tls.KEY)}
    except (KeyError, TypeError, binascii.Error):
        return None


def _put(door: Any, document: Json, version: str) -> None:
    """Replaces the version that was seen, or creates where there was none. Raises ApiError, on a conflict too."""
    from agent.cluster import http

    metadata = document["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/secrets"
    if not version:
        http.send(door, "POST", path, document)
        return
    replaced = {**document, "metadata": {**metadata, "resourceVersion": version}}
    http.send(door, "PUT", f"{path}/{metadata['name']}", replaced)
