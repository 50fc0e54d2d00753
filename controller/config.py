"""The controller's command line: every flag, its default, its unit and its bounds; reads only what flags name."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agent.engines.places import METRICS, is_path
from agent.forms import duration_s, port
from controller.forms import GROUP_03, own_form
from controller.gateway.modes import ASSUMED_MODES
from controller.gateway.tls import CERTIFICATE, KEY
from controller.policies.registry import POLICIES

SHORTEST_REFRESH_S = 0.001
SMALLEST_BODY_MEMORY_BYTES = 1 << 20
MOST_ENDPOINTS = 16  # a header and a retry policy have no use for more
_SIZE = re.compile(r"([0-9]{1,15})(|k|M|G|Ki|Mi|Gi)")
_SIZES = {"": 1, "k": 1000, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
# as Go's strconv.ParseBool, whose forms the field's manifests use
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Config:
    pool_name: str
    manifests: Path | None = None  # None: the API server is watched
    kubeconfig: Path | None = None  # None: as the machine has it
    agent_namespace: str = "sonde-system"
    agent_tls_path: Path | None = None  # ca.crt, tls.crt, tls.key for the agents' streams
    agent_plain_text: bool = False  # follows agents beyond loopback without TLS
    pool_namespace: str = "default"
    pool_group: str = "inference.networking.k8s.io"
    grpc_port: int = 9002  # 0, as for the other ports: the kernel chooses one
    grpc_health_port: int = 9003
    metrics_port: int = 9090
    bind: str = "0.0.0.0"
    metrics_bind: str | None = None  # None: as `bind`
    secure_serving: bool = True
    cert_path: Path | None = None  # None: a self-signed certificate is made at start
    cert_reload: bool = True
    max_endpoints: int = 1
    request_body_mode: str = "auto"
    conformance_hooks: bool = False
    body_memory_bytes: int | None = None  # None: by what the process may use
    drain_delay_s: float = 5.0
    drain_timeout_s: float = 30.0
    refresh_metrics_interval_s: float = 0.05  # of engines that nothing else measures
    page_port: int = 0  # of the engines' pages; 0: their own
    page_path: str = METRICS
    page_tls: bool = False
    config_file: Path | None = None  # an EndpointPickerConfig, as the next
    config_text: str = ""
    policy: str = "sonde"
    slo_ttft_s: float = 5.0  # 0: no wish
    slo_tpot_s: float = 0.0
    explain_sample: int = 0
    agent_port: int = 9431
    weights_port: int = 0  # 0: agents get no weights
    ui: bool = False
    seed: int | None = None  # None: from the system
    ignored: tuple[str, ...] = ()  # flags of other pickers, without effect


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line instead of after a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parse(arguments: Sequence[str]) -> Config:
    """The configuration. Faults print one line to stderr and exit with status 2."""
    parser = _parser()
    given = own_form(arguments)
    if given.release_03:
        parser.set_defaults(pool_group=GROUP_03)
    flags = parser.parse_args(given.own)
    config = Config(
        pool_name=flags.pool_name,
        manifests=flags.manifests,
        kubeconfig=flags.kubeconfig,
        agent_namespace=flags.agent_namespace,
        agent_tls_path=flags.agent_tls_path,
        agent_plain_text=flags.agent_plain_text,
        pool_namespace=flags.pool_namespace,
        pool_group=flags.pool_group,
        grpc_port=flags.grpc_port,
        grpc_health_port=flags.grpc_health_port,
        metrics_port=flags.metrics_port,
        bind=flags.bind,
        metrics_bind=flags.metrics_bind,
        secure_serving=flags.secure_serving,
        cert_path=flags.cert_path,
        cert_reload=flags.enable_cert_reload,
        max_endpoints=flags.max_endpoints,
        request_body_mode=flags.request_body_mode,
        conformance_hooks=flags.conformance_hooks,
        body_memory_bytes=flags.body_memory,
        drain_delay_s=flags.drain_delay,
        drain_timeout_s=flags.drain_timeout,
        refresh_metrics_interval_s=flags.refresh_metrics_interval,
        page_port=flags.model_server_metrics_port,
        page_path=flags.model_server_metrics_path,
        page_tls=flags.model_server_metrics_scheme == "https",
        config_file=flags.config_file,
        config_text=flags.config_text,
        policy=flags.policy,
        slo_ttft_s=flags.slo_ttft,
        slo_tpot_s=flags.slo_tpot,
        explain_sample=flags.explain_sample,
        agent_port=flags.agent_port,
        weights_port=flags.weights_port,
        ui=flags.ui,
        seed=flags.seed,
        ignored=given.ignored,
    )
    try:
        fault = _fault(config)
    except OSError as error:
        fault = f"{error.filename}: {error.strerror}"
    if fault:
        parser.error(fault)
    return config


def _fault(config: Config) -> str | None:
    """What the files that flags name lack."""
    if not config.pool_name:
        return "argument --pool-name: expected the name of an InferencePool, got ''"
    if config.manifests and not config.manifests.is_dir():
        return f"argument --manifests: {config.manifests} is no folder"
    if config.config_file and not config.config_file.is_file():
        return f"argument --config-file: {config.config_file} is no file"
    if config.config_file and config.config_text:
        return "--config-file and --config-text cannot both be given"
    if config.cert_path:
        missing = [name for name in (CERTIFICATE, KEY) if not (config.cert_path / name).is_file()]
        if missing:
            return f"argument --cert-path: {config.cert_path} has no {' and no '.join(missing)}"
    ports = [config.grpc_port, config.grpc_health_port, config.metrics_port, config.weights_port]
    ports = [port for port in ports if port]
    if len(set(ports)) < len(ports):
        return "--grpc-port, --grpc-health-port, --metrics-port and --weights-port must differ"
    return None


def _refresh(text: str) -> float:
    seconds = duration_s(text)
    if seconds < SHORTEST_REFRESH_S:
        raise argparse.ArgumentTypeError(f"{text} is below the shortest interval, {SHORTEST_REFRESH_S * 1000:g}ms")
    return seconds


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _size(text: str) -> int | None:
    """Bytes of a quantity in Kubernetes' form, such as 512Mi; None for "auto"."""
    if text == "auto":
        return None
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _SIZES[found[2] or ""] if found else 0
    if size < SMALLEST_BODY_MEMORY_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a size from 1Mi, such as 512Mi or 1Gi")
    return size


def _path(text: str) -> str:
    if not is_path(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no path such as {METRICS}")
    return text


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def _endpoints(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_ENDPOINTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number 1..{MOST_ENDPOINTS}")
    return int(text)


def _truth_flag(add: Callable[..., Any], name: str, default: bool, text: str) -> None:
    add(name, type=_truth, nargs="?", const=True, default=default, metavar="true|false", help=text)


def _truth(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sonde-controller",
        description="Answers gateways' ext_proc calls with the endpoint that the pods' own kernels say is best.",
        epilog="'sonde-controller top' shows what a running controller knows: see 'sonde-controller top --help'.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--pool-name", required=True, metavar="NAME", help="InferencePool whose pods are picked")
    add("--pool-namespace", default="default", metavar="NAME", help="its namespace")
    add(
        "--pool-group",
        default="inference.networking.k8s.io",
        metavar="GROUP",
        help="its API group; inference.networking.x-k8s.io for v1alpha2",
    )
    add(
        "--manifests",
        type=Path,
        metavar="DIR",
        help="folder of Kubernetes YAML: the cluster; without it the API server is watched",
    )
    add(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how to reach the API server; without it the pod's service account, else $KUBECONFIG or ~/.kube/config",
    )
    add("--agent-namespace", default="sonde-system", metavar="NAME", help="where the agents' pods are")
    add(
        "--agent-tls-path",
        type=Path,
        metavar="DIR",
        help="folder of ca.crt, tls.crt and tls.key for the agents' streams, read again when they change",
    )
    add("--agent-plain-text", action="store_true", help="follow agents beyond loopback without TLS")
    add("--grpc-port", type=port, default=9002, metavar="PORT", help="ext_proc; 0 lets the system choose")
    add("--grpc-health-port", type=port, default=9003, metavar="PORT", help="gRPC health")
    add("--metrics-port", type=port, default=9090, metavar="PORT", help="Prometheus, and the live page")
    add("--metrics-bind", type=_ip, metavar="IP", help="address of the metrics; 127.0.0.1 closes them; else as --bind")
    add("--bind", type=_ip, default="0.0.0.0", metavar="IP", help="address of all ports")
    _truth_flag(add, "--secure-serving", True, "TLS on the ext_proc port")
    add(
        "--cert-path",
        type=Path,
        metavar="DIR",
        help=f"folder of {CERTIFICATE} and {KEY}; without it a self-signed certificate is made at start",
    )
    add(
        "--refresh-metrics-interval",
        type=_refresh,
        default="50ms",
        metavar="DURATION",
        help="between two pages of an engine whose requests neither an agent nor the kernel counts",
    )
    add(
        "--model-server-metrics-port",
        type=port,
        default=0,
        metavar="PORT",
        help="of the pages that this controller reads itself, tried before where labels and annotations say; 0: the "
        "engine's own",
    )
    add("--model-server-metrics-path", type=_path, default=METRICS, metavar="PATH", help="likewise")
    add("--model-server-metrics-scheme", choices=("http", "https"), default="http", help="likewise")
    add(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="EndpointPickerConfig of another picker: thresholds, weights, endpoints of an answer and parsers hold "
        "here too, what else is in it is a line in the log each",
    )
    add("--config-text", default="", metavar="YAML", help="the same as text")
    _truth_flag(add, "--enable-cert-reload", True, "serve a certificate again when its files change")
    add(
        "--max-endpoints",
        type=_endpoints,
        default=1,
        metavar="N",
        help="endpoints of an answer, best first, for gateways that walk the list on retries",
    )
    add(
        "--request-body-mode",
        choices=tuple(ASSUMED_MODES),
        default="auto",
        help="how a gateway that sends no protocol_config sends bodies; auto: as it turns out",
    )
    _truth_flag(add, "--conformance-hooks", False, "obey the conformance suite's headers; any client can steer by them")
    add(
        "--body-memory",
        type=_size,
        default="auto",
        metavar="SIZE",
        help="of all request bodies that are held at once, such as 512Mi; beyond it those that stall get 503; auto: "
        "a quarter of what the process may use, at most 1Gi",
    )
    add(
        "--drain-delay",
        type=duration_s,
        default="5s",
        metavar="DURATION",
        help="after SIGTERM: not ready, but still serving, so that gateways notice first",
    )
    add(
        "--drain-timeout",
        type=duration_s,
        default="30s",
        metavar="DURATION",
        help="after that: for requests that still have no endpoint",
    )
    add("--policy", choices=sorted(POLICIES), default="sonde", help="how an endpoint is chosen")
    add(
        "--slo-ttft",
        type=duration_s,
        default="5s",
        metavar="DURATION",
        help="time a request may wait before its prompt's turn, by prediction; with --policy sonde, requests wait here "
        "and get 429 beyond their class's share of it (critical 1.5, standard 0.8, sheddable 0.5); 0s: no limit",
    )
    add(
        "--slo-tpot",
        type=duration_s,
        default="0s",
        metavar="DURATION",
        help="time between two tokens that a request may be sent to, likewise (1.1, 0.72, 0.6); 0s: no limit",
    )
    add(
        "--explain-sample",
        type=_count,
        default=0,
        metavar="N",
        help="explain each Nth pick in the log and at /debug/explain on the metrics port; 0: none",
    )
    add("--agent-port", type=port, default=9431, metavar="PORT", help="where agents serve their stream")
    add(
        "--weights-port",
        type=port,
        default=0,
        metavar="PORT",
        help="where agents get the weights of connections that no gateway picks for, as for their own stream by mutual "
        "TLS; 0: none",
    )
    add(
        "--ui",
        type=_truth,
        nargs="?",
        const=True,
        default=False,
        metavar="true|false",
        help="the live page, at /ui on the metrics port; whoever reaches the port can look, nobody can change anything",
    )
    add("--seed", type=int, metavar="N", help="of all chance, for runs that can be repeated")
    return parser
