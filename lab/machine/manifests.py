"""The lab as a cluster: the Kubernetes objects both daemons read from its manifests folder. Pure but for `write`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.cluster.objects import BALANCE_SERVICE

NAMESPACE = "default"
POOL = "lab"
AGENT_LABEL = {"app.kubernetes.io/name": "sonde-agent"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LabPod:
    """One pod of the lab, wherever it is placed."""

    name: str
    uid: str
    ip: str
    container_id: str


def pool(port: int, service: str | None = None) -> Json:
    """`service`: whose connections may be steered to its pods."""
    annotations = {BALANCE_SERVICE: service} if service else {}
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": POOL, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": POOL}},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {"name": "sonde-controller", "port": {"number": 9002}},
        },
    }


def service(name: str, ip: str, port: int, target_port: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "selector": {"app": POOL},
            "ports": [{"port": port, "targetPort": target_port, "protocol": "TCP"}],
        },
    }


def pod(spec: LabPod, node: str, port: int, ready: bool = True, app: str = POOL) -> Json:
    status = _status(spec.ip, ready) | {"qosClass": "Burstable"}
    status["containerStatuses"] = [
        {"name": "engine", "ready": ready, "containerID": f"containerd://{spec.container_id}"}
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": spec.name, "namespace": NAMESPACE, "uid": spec.uid, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "engine", "ports": [{"containerPort": port}]}]},
        "status": status,
    }


def objective(name: str, priority: int) -> Json:
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"priority": priority, "poolRef": {"name": POOL}},
    }


def agent(node: str, ip: str) -> Json:
    """The agent's own Pod, by which the controller finds it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"sonde-agent-{node}",
            "namespace": NAMESPACE,
            "uid": "00000000-0000-4000-8000-000000000000",
            "labels": AGENT_LABEL,
        },
        "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
        "status": _status(ip),
    }


def write(folder: Path, objects: Iterable[Json]) -> None:
    """One file an object, each put in place whole: readers watch the folder."""
    for value in objects:
        name = f"{value['kind'].lower()}-{value['metadata']['name']}.yaml"
        unfinished = folder / f".{name}.part"
        unfinished.write_text(yaml.safe_dump(value, sort_keys=False))
        os.replace(unfinished, folder / name)


def _status(ip: str, ready: bool = True) -> Json:
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
