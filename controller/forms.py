"""Arguments as other pickers take them, turned into this program's own: Go's forms, the names of release 0.3, and flags
that have nothing to say here. So a manifest that starts another picker starts this one.

Knows names of flags only; refuses to know what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# of release 0.3, which knew pools of one group only
RENAMED = {
    "poolName": "pool-name",
    "poolNamespace": "pool-namespace",
    "grpcPort": "grpc-port",
    "grpcHealthPort": "grpc-health-port",
    "metricsPort": "metrics-port",
    "refreshMetricsInterval": "refresh-metrics-interval",
    "secureServing": "secure-serving",
    "certPath": "cert-path",
}
GROUP_03 = "inference.networking.x-k8s.io"

# Metrics are found by what a page holds, logs have one level, and what is left has no counterpart here.
IGNORED = frozenset(
    {
        "v",
        "refreshPrometheusMetricsInterval",
        "refresh-prometheus-metrics-interval",
        "metrics-staleness-threshold",
        "totalQueuedRequestsMetric",
        "total-queued-requests-metric",
        "total-running-requests-metric",
        "kvCacheUsagePercentageMetric",
        "kv-cache-usage-percentage-metric",
        "loraInfoMetric",
        "lora-info-metric",
        "cache-info-metric",
        "destinationEndpointHintKey",
        "destinationEndpointHintMetadataNamespace",
        "grpc-max-recv-msg-size",
        "grpc-max-send-msg-size",
        "zap-encoder",
        "zap-log-level",
        "zap-stacktrace-level",
        "zap-time-encoding",
    }
)
IGNORED_SWITCHES = frozenset(
    {
        "enable-pprof",
        "health-checking",
        "tracing",
        "metrics-endpoint-auth",
        "ha-enable-leader-election",
        "model-server-metrics-https-insecure-skip-verify",
        "enable-grpc-stream-metrics",
        "allow-experimental-plugins",
        "zap-devel",
    }
)


@dataclass(frozen=True, slots=True)
class Arguments:
    own: tuple[str, ...]
    ignored: tuple[str, ...]  # names of flags that have no effect
    release_03: bool  # a name that only release 0.3 has was among them


def own_form(arguments: Sequence[str]) -> Arguments:
    own: list[str] = []
    ignored: list[str] = []
    release_03 = False
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or argument in ("-", "--", "-h") or argument[1:2].isdigit():
            own.append(argument)
        elif name in IGNORED or name in IGNORED_SWITCHES:
            ignored.append(name)
            if name in IGNORED and not equals and left:
                left.pop(0)
        elif name in RENAMED:
            release_03 = True
            own.append(f"--{RENAMED[name]}{equals}{value}")
        else:
            own.append(f"--{name}{equals}{value}" if name else argument)
    return Arguments(tuple(own), tuple(dict.fromkeys(ignored)), release_03)
