"""What is read of a pod's containers: their ports by name, and whether one is a mesh's sidecar. Never complains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# A sidecar takes its pod's connections by their destination: a Service's address must reach it as it was asked for.
SIDECARS = frozenset({"istio-proxy", "linkerd-proxy", "consul-dataplane", "kuma-sidecar", "envoy-sidecar"})
# annotation -> a value that says there is one; "": any
MESHED = {
    "sidecar.istio.io/status": "",
    "ambient.istio.io/redirection": "enabled",
    "linkerd.io/proxy-version": "",
    "consul.hashicorp.com/connect-inject-status": "injected",
    "kuma.io/sidecar-injected": "true",
}


def is_meshed(spec: Mapping[Any, Any], annotations: Mapping[str, str]) -> bool:
    marked = (annotations.get(key) for key, wanted in MESHED.items() if not wanted or annotations.get(key) == wanted)
    return any(marked) or any(container.get("name") in SIDECARS for container in _containers(spec))


def named_ports(spec: Mapping[Any, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for container in _containers(spec):
        ports = container.get("ports")
        for port in ports if isinstance(ports, list) else ():
            name = port.get("name") if isinstance(port, Mapping) else None
            number = port.get("containerPort") if isinstance(port, Mapping) else None
            if isinstance(name, str) and isinstance(number, int):
                found.setdefault(name, number)
    return found


def _containers(spec: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """Of init containers too: a sidecar may be one that stays."""
    for key in ("containers", "initContainers"):
        listed = spec.get(key)
        yield from (one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, Mapping))
