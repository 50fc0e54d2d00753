"""Envoy's bootstrap for the lab and the gateway tests: one listener for each way to choose a pod, over the same pods.

Pure but for `find`, which looks for Envoy's binary on this machine. Knows nothing of what the picker answers.
The facts behind the settings were observed on Envoy 1.40.
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

DESTINATION = "x-gateway-destination-endpoint"
Json = dict[str, Any]
Address = tuple[str, int]


class BodyMode(Enum):
    """How the sonde listener gives request bodies to the picker."""

    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"
    STREAMED = "STREAMED"
    NONE = "NONE"

    @property
    def shows_body(self) -> bool:
        """Whether the picker sees the body before it must answer."""
        return self in (BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED)


class Routing(Enum):
    """How the sonde listener obeys the pick: a host of its own list, or whatever address the header names."""

    OVERRIDE_HOST = "override_host"
    ORIGINAL_DST = "original_dst"


@dataclass(frozen=True, slots=True)
class Gateway:
    """What to write a bootstrap for. A port that is None has no listener; `picker` is where ext_proc is served."""

    pods: tuple[Address, ...]
    picker: Address
    host: str = "127.0.0.1"
    sonde_port: int | None = 8080
    round_robin_port: int | None = None
    least_request_port: int | None = None
    admin_port: int | None = None
    body_mode: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    routing: Routing = Routing.OVERRIDE_HOST
    more_pickers: tuple[Address, ...] = ()  # other replicas
    health_check_s: float | None = None  # the interval at which pickers are asked; None: never
    sends_responses: bool = False  # to the picker, as gateways made for other pickers do
    picker_tls: bool = True
    fail_open: bool = False
    message_timeout_s: float = 1.0  # Envoy applies it to BUFFERED only
    body_limit_bytes: int = 8 << 20  # BUFFERED answers 413 above it


def find(repository: Path | None = None) -> Path | None:
    """Envoy's binary: $SONDE_ENVOY, else the .envoy environment beside pyproject.toml, else PATH; None if nowhere."""
    if named := os.environ.get("SONDE_ENVOY"):
        return Path(named) if os.access(named, os.X_OK) else None
    root = repository or Path(__file__).resolve().parents[2]
    for found in sorted(glob.glob(str(root / ".envoy/lib/python3*/site-packages/envoy/_bin/envoy"))):
        if os.access(found, os.X_OK):
            return Path(found)
    on_path = shutil.which("envoy")
    return Path(on_path) if on_path else None


def command(binary: Path, bootstrap_file: Path, log_level: str = "warning") -> list[str]:
    """How to start Envoy on a bootstrap: one worker, since the lab shares two cores, and no shared memory region."""
    return [
        str(binary),
        "--config-path",
        str(bootstrap_file),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        log_level,
    ]


def bootstrap(gateway: Gateway) -> Json:
    """Envoy's whole configuration as JSON values."""
    listeners = []
    clusters = []
    if gateway.sonde_port is not None:
        listeners.append(_listener(gateway, "sonde", gateway.sonde_port, [_ext_proc(gateway)]))
        clusters += [_picked(gateway), _picker(gateway)]
    for name, port in (("round_robin", gateway.round_robin_port), ("least_request", gateway.least_request_port)):
        if port is not None:
            listeners.append(_listener(gateway, name, port, []))
            clusters.append(_pods(name, gateway.pods) | {"lb_policy": name.upper()})
    config: Json = {"static_resources": {"listeners": listeners, "clusters": clusters}}
    if gateway.admin_port is not None:
        config["admin"] = {"address": _address((gateway.host, gateway.admin_port))}
    return config


def _listener(gateway: Gateway, name: str, port: int, filters: list[Json]) -> Json:
    router = _extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")
    connection_manager = _extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        http_filters=[*filters, router],
        route_config={"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [_route(name)]}]},
        stream_idle_timeout="0s",  # a pod that hangs and goes on is the lab's point
        generate_request_id=True,
    )
    return {
        "name": name,
        "address": _address((gateway.host, port)),
        "per_connection_buffer_limit_bytes": gateway.body_limit_bytes,
        "filter_chains": [{"filters": [connection_manager]}],
    }


def _route(cluster: str) -> Json:
    retry = {"retry_on": "connect-failure,refused-stream", "num_retries": 2}
    return {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s", "retry_policy": retry}}


def _ext_proc(gateway: Gateway) -> Json:
    duplex = gateway.body_mode is BodyMode.FULL_DUPLEX_STREAMED
    return _extension(
        "envoy.filters.http.ext_proc",
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": "picker", "authority": "picker"}},
        failure_mode_allow=gateway.fail_open,
        message_timeout=f"{gateway.message_timeout_s}s",
        # without this the dynamic metadata of the answer is dropped in silence
        metadata_options={"receiving_namespaces": {"untyped": ["envoy.lb"]}},
        processing_mode={
            "request_header_mode": "SEND",  # SKIP forwards the headers before the pick
            "request_body_mode": gateway.body_mode.value,
            "request_trailer_mode": "SEND" if duplex else "SKIP",  # Envoy refuses SKIP with full duplex
            "response_header_mode": "SEND" if gateway.sends_responses else "SKIP",
            "response_body_mode": "FULL_DUPLEX_STREAMED" if gateway.sends_responses else "NONE",
            "response_trailer_mode": "SEND" if gateway.sends_responses else "SKIP",
        },
    )


# Envoy's defaults are 1024 requests at once and 3 retries at once, beyond which it answers 503 itself.
_MOST = 40_000
_UNBROKEN: Json = {
    "thresholds": [
        {"max_connections": _MOST, "max_pending_requests": _MOST, "max_requests": _MOST, "max_retries": _MOST}
    ]
}


def _picked(gateway: Gateway) -> Json:
    if gateway.routing is Routing.ORIGINAL_DST:
        return {
            "name": "sonde",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "1s",
            "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
            "circuit_breakers": _UNBROKEN,
        } | _upstream_http()
    fallback = _policy("round_robin", "round_robin.v3.RoundRobin")
    override = _policy(
        "override_host",
        "override_host.v3.OverrideHost",
        # from metadata only: a header could be the client's
        override_host_sources=[{"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}}],
        fallback_policy={"policies": [fallback]},
    )
    return _pods("sonde", gateway.pods) | {"load_balancing_policy": {"policies": [override]}}


def _policy(name: str, message: str, **fields: Any) -> Json:
    prefix = "envoy.extensions.load_balancing_policies."
    return {
        "typed_extension_config": _extension(f"envoy.load_balancing_policies.{name}", prefix + message, **fields),
    }


def _pods(name: str, pods: tuple[Address, ...]) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _assignment(name, pods),
        "circuit_breakers": _UNBROKEN,
    } | _upstream_http()


def _upstream_http() -> Json:
    # vLLM closes a connection that is idle for 5 s; Envoy must let go first or a request meets the close
    return _http_options({"idle_timeout": "4s"}, {"http_protocol_options": {}})


def _picker(gateway: Gateway) -> Json:
    keepalive = {"connection_keepalive": {"interval": "5s", "timeout": "2s"}}
    cluster: Json = {
        "name": "picker",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "0.5s",
        "load_assignment": _assignment("picker", (gateway.picker, *gateway.more_pickers)),
        "circuit_breakers": _UNBROKEN,
        # so that fail-open also works in full duplex once the picker's only host is unhealthy
        # and so that workers hear of a replica's health at once, not within a second
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
    } | _http_options({}, {"http2_protocol_options": keepalive})
    if gateway.health_check_s is not None:
        cluster["health_checks"] = [_health_check(gateway.health_check_s)]
    if gateway.picker_tls:
        cluster["transport_socket"] = _extension(
            "envoy.transport_sockets.tls",
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            sni="picker",
            common_tls_context={
                "alpn_protocols": ["h2"],
                "validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"},  # self-signed by default
            },
        )
    return cluster


def _health_check(interval_s: float) -> Json:
    """One answer decides, either way: a picker that drains says so while it still serves."""
    return {
        "timeout": "2s",
        "interval": f"{interval_s}s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "no_traffic_interval": f"{interval_s}s",
        "grpc_health_check": {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"},
    }


def _http_options(common: Json, explicit: Json) -> Json:
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{name}",
        "common_http_protocol_options": common,
        "explicit_http_config": explicit,
    }
    return {"typed_extension_protocol_options": {name: options}}


def _assignment(name: str, addresses: tuple[Address, ...]) -> Json:
    endpoints = [{"endpoint": {"address": _address(address)}} for address in addresses]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def _address(address: Address) -> Json:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _extension(name: str, message: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{message}", **fields}}
