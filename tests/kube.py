"""Kubernetes documents for tests, and a real kube-apiserver where KUBEBUILDER_ASSETS names one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.apistore import PLURALS, collection_of

Json = dict[str, Any]
V1 = "inference.networking.k8s.io/v1"
V1ALPHA2 = "inference.networking.x-k8s.io/v1alpha2"


def pod(name: str, node: str = "n1", ip: str | None = "10.0.0.1", **labels: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {"app": "llm"}},
        "spec": {"nodeName": node, "containers": [{"name": "engine", "image": "engine"}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]} if ip else {},
    }


def agent_pod(name: str, node: str, ip: str, namespace: str = "sonde-system") -> Json:
    value = pod(name, node, ip, **{"app.kubernetes.io/name": "sonde-agent"})
    value["metadata"]["namespace"] = namespace
    return value


def pool(name: str = "llm", ports: Sequence[int] = (8000,), **labels: str) -> Json:
    return {
        "apiVersion": V1,
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels or {"app": "llm"}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "sonde", "port": {"number": 9002}},
        },
    }


def service(name: str, ip: str, port: int, target: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": port, "targetPort": target}]},
    }


def endpoint_slice(service: str, port: int, pods: Mapping[str, tuple[str, bool]]) -> Json:
    """`pods`: the address of each, and whether it is ready."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-abcde",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [ip], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}}
            for name, (ip, ready) in pods.items()
        ],
    }


def objective(name: str, priority: int) -> Json:
    return {
        "apiVersion": V1ALPHA2,
        "kind": "InferenceObjective",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"priority": priority, "poolRef": {"name": "llm"}},
    }


def crd(api: str, kind: str) -> Json:
    """A CRD that takes anything; for a server that checks schemas itself the real ones are to be installed."""
    group, version = api.split("/")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURALS[kind]}.{group}",
            # groups below k8s.io need a word on their review
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": PLURALS[kind], "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


class KubeApiServer:
    """kube-apiserver and etcd out of a folder, as envtest lays them; the same calls as apiserver.ApiServer's."""

    token = "test-token"

    def __init__(self, assets: Path, folder: Path) -> None:
        self._folder = folder
        self.port, etcd, peer = _free_port(), _free_port(), _free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        (folder / "tokens").write_text(f'{self.token},admin,1,"system:masters"\n')
        subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
        self._processes = [
            self._start(
                assets / "etcd",
                *("--data-dir", str(folder / "etcd"), f"--listen-client-urls=http://127.0.0.1:{etcd}"),
                *(f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls=http://127.0.0.1:{peer}"),
            ),
            self._start(
                assets / "kube-apiserver",
                *(f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={self.port}"),
                *("--bind-address=127.0.0.1", f"--cert-dir={folder / 'certs'}", "--authorization-mode=RBAC"),
                *(f"--token-auth-file={folder / 'tokens'}", "--disable-admission-plugins=ServiceAccount"),
                *("--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://localhost"),
                *(f"--service-account-key-file={folder / 'sa.key'}",),
                *(f"--service-account-signing-key-file={folder / 'sa.key'}",),
            ),
        ]

    def _start(self, binary: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{binary.name}.log").open("wb") as log:
            return subprocess.Popen([binary, *arguments], stdout=log, stderr=log)

    def ready(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError):
                if self._call("GET", "/readyz") == 200 and self._call("GET", "/api/v1/namespaces/default") == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("kube-apiserver is not ready after 60 s")

    def put(self, document: Json) -> None:
        """Creates or replaces, the status too."""
        document = json.loads(json.dumps(document))
        metadata = document["metadata"]
        self._namespace(metadata.get("namespace"))
        path = f"{_path(document)}/{metadata['name']}"
        if self._call("POST", _path(document), document) == 409:
            assert self._call("PATCH", path, {"metadata": metadata}) == 200
            if document["kind"] != "Pod":
                assert self._call("PATCH", path, document) == 200
        if document.get("status"):
            assert self._call("PATCH", f"{path}/status", {"status": document["status"]}) == 200

    def delete(self, document: Json) -> None:
        path = f"{_path(document)}/{document['metadata']['name']}?gracePeriodSeconds=0"
        assert self._call("DELETE", path) in (200, 202)

    def _namespace(self, name: str | None) -> None:
        if name and name != "default":
            self._call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def _call(self, method: str, path: str, body: Json | None = None) -> int:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode() if body else None,
            {"Authorization": f"Bearer {self.token}", "Content-Type": kind},
            method=method,
        )
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def kubeconfig(self, folder: Path) -> Path:
        return kubeconfig(folder, self.url, self.token, self._folder / "certs" / "apiserver.crt")

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(20)


def _path(document: Json) -> str:
    if document["kind"] == "CustomResourceDefinition":
        return "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    root, _, plural = collection_of(document).rpartition("/")
    return f"{root}/namespaces/{document['metadata']['namespace']}/{plural}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assets() -> Path | None:
    """The folder with kube-apiserver and etcd, if there is one."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    return Path(named) if named and (Path(named) / "kube-apiserver").exists() else None


@contextlib.contextmanager
def real_server(binaries: Path, folder: Path) -> Iterator[KubeApiServer]:
    server = KubeApiServer(binaries, folder)
    try:
        server.ready()
        for kind in PLURALS:
            if kind.startswith("Inference"):
                server.put(crd(V1 if kind == "InferencePool" else V1ALPHA2, kind))
        time.sleep(2)  # the server serves a new CRD a moment later
        yield server
    finally:
        server.stop()


def kubeconfig(folder: Path, url: str, token: str = "", ca: Path | None = None) -> Path:
    """A kubeconfig file for a server."""
    cluster: Json = {"server": url} | ({"certificate-authority": str(ca)} if ca else {})
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(value))
    return path


def until(holds: Callable[[], Any], limit_s: float = 20.0) -> Any:
    """Waits for what another thread brings about."""
    for _ in itertools.takewhile(lambda at: at < limit_s / 0.01, itertools.count()):
        found = holds()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {limit_s:g} s")
