"""The flags of `sonde-lab steer`; reads nothing of the machine."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from lab.forms import name, number, some_of

KUBE_PROXY, EQUAL, STEER = "kube-proxy", "equal", "steer"
ARMS = {
    KUBE_PROXY: "each connection to a pod by chance, by the rules kube-proxy makes, in nftables; agents only measure",
    EQUAL: "agents steer without any controller: equal weights over the ready pods",
    STEER: "agents steer by a controller's weights",
}


@dataclass(frozen=True, slots=True)
class SteerConfig:
    """Direct clients of one Service: how many pods, which arms, and how long."""

    lab: str
    seed: int
    pods: int
    rate_per_s: float  # of all clients together
    warmup_s: float  # of each arm's load, left out of the table
    duration_s: float  # after it
    slow: float  # how much longer the second pod's steps take
    rounds: int
    arms: tuple[str, ...]
    out: Path | None


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of arrivals and lengths (default %(default)s)")
    add("--pods", type=number(int, 3, 30), default=6, metavar="N", help="on three nodes in turn (default %(default)s)")
    add(
        "--rate",
        dest="rate_per_s",
        type=number(float, 0.1, 200),
        default=20.0,
        metavar="REQ/S",
        help="of three clients together, one a node, a connection for each request (default %(default)s)",
    )
    add(
        "--warmup",
        dest="warmup_s",
        type=number(float, 0, 600),
        default=25.0,
        metavar="SECONDS",
        help="of each arm's load, left out of the table (default %(default)s)",
    )
    add(
        "--duration",
        dest="duration_s",
        type=number(float, 1, 3600),
        default=30.0,
        metavar="SECONDS",
        help="of each arm's load after that (default %(default)s)",
    )
    add(
        "--slow",
        type=number(float, 1, 100),
        default=2.5,
        metavar="FACTOR",
        help="how much longer the second pod's steps take (default %(default)s)",
    )
    add(
        "--rounds",
        type=number(int, 1, 100),
        default=1,
        metavar="N",
        help="each with its own arrivals, the same for all arms (default %(default)s)",
    )
    add(
        "--arms",
        type=some_of(ARMS),
        default=(KUBE_PROXY, STEER),
        metavar="A,B",
        help=f"of {','.join(ARMS)} (default {KUBE_PROXY},{STEER})",
    )
    add("--out", type=Path, metavar="FILE", help="where the table goes, besides the terminal")
    add(
        "--name",
        dest="lab",
        type=name,
        default="sonde-steer",
        help="prefix of everything made on this machine (default %(default)s)",
    )
