"""What steering is doing now, as plain values: for the metrics, for /nodez and for `sonde-agent status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PoolName = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class EndpointState:
    """Of one pod's port; connections since it was first in a table."""

    pool: PoolName
    pod: str  # "": nobody says which
    connections: int
    intended: float  # connections that its shares would have come to since this agent began
    share: float  # of new connections now, over all addresses of the pool's Service
    rtt_s: float | None


@dataclass(frozen=True, slots=True)
class PoolState:
    pool: PoolName
    service: str
    source: str  # controller, equal, none
    fault: str  # "": none
    frontends: Sequence[str]  # address:port
    by_reason: Mapping[str, int]
    table_age_s: float | None  # since its youngest table was put; None: it has none
    weights_age_s: float | None  # how old the controller's prices are; None: none are used


@dataclass(frozen=True, slots=True)
class SteeringState:
    pools: Sequence[PoolState] = ()
    endpoints: Sequence[EndpointState] = ()
    controllers: int = 0  # streams of weights that are open
    frames: int = 0
    changes: int = 0  # of tables
    left_alone: int = 0  # cgroups of clients
    beating: bool = False
    problems: Mapping[str, str] = field(default_factory=dict)


def json_of(state: SteeringState) -> dict[str, object]:
    """For /nodez."""
    return {
        "beating": state.beating,
        "controllers": state.controllers,
        "clients_left_alone": state.left_alone,
        "pools": [
            {
                "namespace": one.pool[0],
                "pool": one.pool[1],
                "service": one.service,
                "frontends": list(one.frontends),
                "weights": one.source,
                "fault": one.fault,
                "connections": dict(one.by_reason),
                "endpoints": [
                    {
                        "pod": each.pod,
                        "share": round(each.share, 4),
                        "connections": each.connections,
                        "rtt_us": None if each.rtt_s is None else round(each.rtt_s * 1e6, 1),
                    }
                    for each in state.endpoints
                    if each.pool == one.pool
                ],
            }
            for one in state.pools
        ],
    }
