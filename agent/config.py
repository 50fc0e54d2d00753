"""The agent's command lines: every flag, its default, its unit and its bounds; reads nothing of the machine."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from agent.forms import daemonset, interval, kubelet, name, names, port, sampling_interval, share, url
from agent.steering.flags import add_flags

PIN_ROOT = Path("/sys/fs/bpf/sonde")  # as agent.kernel.pins has it; named here so that --help loads no kernel code


@dataclass(frozen=True, slots=True)
class RunConfig:
    node_name: str  # only pods with this spec.nodeName are measured
    manifests: Path | None  # None: the API server is watched
    cgroup_root: Path | None  # None: the first cgroup v2 mount of the usual two
    pin_root: Path
    bind: str
    port: int  # gRPC; 0 lets the kernel choose
    metrics_port: int  # Prometheus; 0 lets the kernel choose
    interval_s: float  # between two reads of the slots
    engine_interval_s: float  # between two reads of a busy engine's page
    kubeconfig: Path | None = None  # None: as the machine has it
    namespaces: tuple[str, ...] = ()  # of the API server, to look at; (): all
    kubelet: str | None = None  # URL; pods are asked of it instead of the API server
    kubelet_ca: Path | None = None  # None: its certificate is not verified
    tls_path: Path | None = None  # ca.crt, tls.crt, tls.key: controllers must show a certificate
    plain_text: bool = False  # allows a stream without TLS beyond loopback
    metrics_bind: str | None = None  # None: as `bind`
    health_port: int = 9433
    pod_resources: Path | None = None  # kubelet's socket
    nvml: bool = False
    dcgm_exporter: str | None = None  # URL
    npu_exporter: str | None = None  # URL
    without_kernel: bool = False  # no maps are opened; engines' pages and devices only
    weights_from: tuple[tuple[str, int], ...] = ()  # host, port: where controllers serve weights
    balance_services: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (namespace, pool) -> Service
    kernel_share: float = 0.1  # of one core, that the kernel programs may take before they leave things out; 0: any


@dataclass(frozen=True, slots=True)
class LoadConfig:
    pin_root: Path
    attach_cgroup: Path | None  # None: where the loader finds fit
    steer: bool = False  # also the programs that steer connections


@dataclass(frozen=True, slots=True)
class UnloadConfig:
    pin_root: Path
    when_deleted: tuple[str, str] | None = None  # only if the DaemonSet (namespace, name) is gone or going


@dataclass(frozen=True, slots=True)
class CheckConfig:
    pin_root: Path
    cgroup_root: Path | None


@dataclass(frozen=True, slots=True)
class CertsConfig:
    out: Path | None  # a folder for each role
    keep: bool  # Secrets of the API server, renewed; neither: Secrets are printed
    namespace: str  # the agents'
    controller_namespaces: tuple[str, ...]
    kubeconfig: Path | None


@dataclass(frozen=True, slots=True)
class StatusConfig:
    port: int
    json: bool


Config = RunConfig | LoadConfig | UnloadConfig | CheckConfig | CertsConfig | StatusConfig


def parse(arguments: Sequence[str]) -> Config:
    """The configuration of one command. Faults print one line to stderr and exit with status 2."""
    flags = _parser().parse_args(arguments)
    if flags.command == "load":
        return LoadConfig(flags.pin_root, flags.attach_cgroup, flags.steer)
    if flags.command == "unload":
        return UnloadConfig(flags.pin_root, flags.when_deleted)
    if flags.command == "check":
        return CheckConfig(flags.pin_root, flags.cgroup_root)
    if flags.command == "status":
        return StatusConfig(flags.health_port, flags.json)
    if flags.command == "certs":
        return CertsConfig(flags.out, flags.keep, flags.namespace, flags.controller_namespaces, flags.kubeconfig)
    return RunConfig(
        node_name=flags.node_name,
        manifests=flags.manifests,
        cgroup_root=flags.cgroup_root,
        pin_root=flags.pin_root,
        bind=flags.bind,
        port=flags.port,
        metrics_port=flags.metrics_port,
        interval_s=flags.interval,
        engine_interval_s=flags.engine_interval,
        kubeconfig=flags.kubeconfig,
        namespaces=flags.namespaces,
        kubelet=flags.kubelet,
        kubelet_ca=flags.kubelet_ca,
        tls_path=flags.tls_path,
        plain_text=flags.plain_text,
        metrics_bind=flags.metrics_bind,
        health_port=flags.health_port,
        pod_resources=flags.pod_resources,
        nvml=flags.nvml,
        dcgm_exporter=flags.dcgm_exporter,
        npu_exporter=flags.npu_exporter,
        without_kernel=flags.without_kernel,
        weights_from=flags.weights_from,
        balance_services=flags.balance_services,
        kernel_share=flags.kernel_share,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line instead of after a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sonde-agent",
        description="Measures the inference pods of one node in its kernel and streams what it sees.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_load(commands.add_parser("load", help="compile, attach and pin the programs, then exit", allow_abbrev=False))
    _add_run(commands.add_parser("run", help="measure, serve the stream and the metrics", allow_abbrev=False))
    _add_unload(commands.add_parser("unload", help="detach and unpin everything", allow_abbrev=False))
    _add_check(commands.add_parser("check", help="say what this machine has and lacks", allow_abbrev=False))
    # its flags are agent.top's, so that no other command loads what it needs
    commands.add_parser("top", help="a live table of what a running agent sees", add_help=False)
    _add_certs(commands.add_parser("certs", help="make the certificates of agents and controllers", allow_abbrev=False))
    _add_status(commands.add_parser("status", help="what the agent on this node knows", allow_abbrev=False))
    return parser


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--health-port", type=port, default=9433, help="of the agent (default %(default)s)")


def _add_devices(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--pod-resources", type=Path, metavar="SOCKET", help="kubelet's socket, asked which pod has which devices")
    add(
        "--nvml", action="store_true", help="read GPUs by NVIDIA's library (package nvidia-ml-py); soft where it is not"
    )
    add("--dcgm-exporter", type=url, metavar="URL", help="page of DCGM's exporter on this node")
    add("--npu-exporter", type=url, metavar="URL", help="page of Huawei's npu-exporter on this node")


def _add_pin_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pin-root",
        type=Path,
        default=PIN_ROOT,
        metavar="DIR",
        help="folder of the pins (default %(default)s)",
    )


def _add_cgroup_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cgroup-root",
        type=Path,
        metavar="DIR",
        help="cgroup v2 mount (default: /sys/fs/cgroup, or /sys/fs/cgroup/unified where the former is v1)",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    _add_pin_root(parser)
    parser.add_argument(
        "--attach-cgroup",
        type=Path,
        metavar="DIR",
        help="cgroup whose sockets to follow (default: the kubepods cgroup, or the cgroup v2 root where there is none)",
    )
    parser.add_argument(
        "--steer",
        action="store_true",
        help="also the programs that steer new connections to balanced Services; without it they are taken away",
    )


def _add_unload(parser: argparse.ArgumentParser) -> None:
    _add_pin_root(parser)
    parser.add_argument("--attach-cgroup", type=Path, metavar="DIR", help="accepted as by load; the pins tell where")
    parser.add_argument(
        "--when-deleted",
        type=daemonset,
        metavar="NAMESPACE/NAME",
        help="only if this DaemonSet is not there any more, or is being deleted; an update leaves the programs",
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_pin_root(parser)
    _add_cgroup_root(parser)


def _add_kubeconfig(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how to reach the API server (default: the pod's service account, else $KUBECONFIG or ~/.kube/config)",
    )


def _add_certs(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="DIR", help="write agent/, controller/ and ca/ there")
    where.add_argument("--keep", action="store_true", help="keep the Secrets of the API server, renewed, until stopped")
    where.add_argument("--print", action="store_true", help="print Secrets for kubectl apply -f - (the default)")
    parser.add_argument("--namespace", type=name, default="sonde-system", metavar="NAME", help="the agents' namespace")
    parser.add_argument(
        "--controller-namespaces",
        type=names,
        default=("default",),
        metavar="NAME,...",
        help="namespaces of controllers, each gets a Secret (default: default)",
    )
    _add_kubeconfig(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--node-name",
        type=name,
        default=socket.gethostname().lower(),
        metavar="NAME",
        help="spec.nodeName of the pods to measure (default: the host's name, as kubelet has it)",
    )
    add(
        "--manifests",
        type=Path,
        metavar="DIR",
        help="folder of Kubernetes YAML with pods and pools (default: the API server is watched)",
    )
    _add_kubeconfig(parser)
    add(
        "--kubelet",
        type=kubelet,
        metavar="URL",
        help="ask this kubelet for the node's pods each 5 s instead of watching them on the API server",
    )
    add("--kubelet-ca", type=Path, metavar="FILE", help="CA of its certificate (default: it is not verified)")
    add(
        "--namespaces",
        type=names,
        default=(),
        metavar="NAME,...",
        help="watch only these namespaces of the API server, so that Roles suffice (default: all)",
    )
    _add_cgroup_root(parser)
    _add_pin_root(parser)
    add("--bind", default="0.0.0.0", metavar="ADDRESS", help="address to listen at (default %(default)s)")
    add(
        "--tls-path",
        type=Path,
        metavar="DIR",
        help="folder of ca.crt, tls.crt and tls.key, read again when they change: controllers must have a certificate",
    )
    add("--plain-text", action="store_true", help="serve the stream without TLS also beyond loopback")
    add(
        "--health-port",
        type=port,
        default=9433,
        help="/healthz and /readyz, and /nodez for callers on the node, 0 for any (default %(default)s)",
    )
    add_flags(parser)
    add("--without-kernel", action="store_true", help="measure nothing in the kernel: engines' pages and devices only")
    _add_devices(parser)
    add("--metrics-bind", metavar="ADDRESS", help="address of the metrics; 127.0.0.1 closes them (default: --bind)")
    add("--port", type=port, default=9431, help="gRPC port of the stream, 0 for any (default %(default)s)")
    add("--metrics-port", type=port, default=9432, help="Prometheus port, 0 for any (default %(default)s)")
    add(
        "--interval",
        type=sampling_interval,
        default=0.02,
        metavar="DURATION",
        help="between two reads of the kernel's counts (default 20ms)",
    )
    add(
        "--engine-interval",
        type=interval,
        default=1.0,
        metavar="DURATION",
        help="between two reads of a busy engine's metrics page; idle ones are read a thirtieth as often (default 1s)",
    )
    add(
        "--kernel-share",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="of one core, that the kernel programs may take; above it they leave things out: HTTP/2, then write and "
        "read calls, opaque turns, histograms; 0 sets no bound (default %(default)s)",
    )
