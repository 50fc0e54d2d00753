"""Pools, Services, pods and slices as tests of steering write them."""

from __future__ import annotations

from typing import Any

from agent.cluster.objects import Cluster, cluster_of, read_object
from agent.steering.state import EndpointState, PoolState, SteeringState

VIP = "10.96.0.10"
Json = dict[str, Any]


def pool(name: str = "llm", service: str = "direct", ports: tuple[int, ...] = (8000,)) -> Json:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "ns", "annotations": {"sonde.dev/balance-service": service}},
        "spec": {
            "selector": {"matchLabels": {"app": "llm"}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        },
    }


def service(name: str = "direct", addresses: tuple[str, ...] = (VIP,), target: object = 8000, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {
            "clusterIPs": list(addresses),
            "selector": {"app": "llm"},
            "ports": [{"name": "http", "port": 80, "targetPort": target}],
            **spec,
        },
    }


def pod(name: str, ip: str, ready: bool = True, port_name: str = "http", **metadata: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "labels": {"app": "llm"}, **metadata},
        "spec": {"containers": [{"name": "engine", "ports": [{"name": port_name, "containerPort": 8000}]}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def endpoint_slice(endpoints: list[Json], name: str = "direct-x", kind: str = "IPv4", port: int = 8000) -> Json:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "direct"}},
        "addressType": kind,
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


def behind(address: str, pod_name: str = "", ready: bool | None = True) -> Json:
    reference = {"targetRef": {"kind": "Pod", "name": pod_name}} if pod_name else {}
    return {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}, **reference}


def cluster(*documents: Json) -> Cluster:
    return cluster_of([read_object(document) for document in documents])


KEY = ("ns", "llm")
REASONS = {"steered": 9, "stale": 2, "no_endpoint": 1}
STATE = SteeringState(
    pools=[PoolState(KEY, "direct", "controller", "", ["10.96.0.10:80"], REASONS, 4.0, 1.5)],
    endpoints=[
        EndpointState(KEY, "a", 6, 5.5, 0.5, 0.0002),
        EndpointState(KEY, "a", 1, 0.5, 0.25, None),
        EndpointState(KEY, "b", 2, 3.0, 0.25, None),
    ],
    controllers=2,
    frames=7,
    changes=3,
    left_alone=4,
    beating=True,
)
