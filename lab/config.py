"""The lab's command lines: every flag, its default, its unit and its bounds; reads nothing of the machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import NoReturn

from controller.policies.registry import POLICIES
from lab.contests.trials import SCENARIOS
from lab.contests.workload import LENGTHS, Arrivals
from lab.direct.config import SteerConfig, add_flags
from lab.engines.batching import Model
from lab.engines.knobs import Knobs
from lab.forms import name, number, some_of, which_part
from lab.machine.envoy import BodyMode


class Kind(Enum):
    """How pods are placed on this machine."""

    NAMESPACES = "namespaces"
    LOOPBACK = "loopback"


MODEL = "lab"
DEFAULT_LAB = "sonde-lab"
ARMS = ("sonde", "round_robin", "least_request")
COMPARED = ("sonde", "round-robin", "least-request", "llm-d", "dynamo", "predicted-latency")


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """`demo` and `up`; `up` is the lab without load, kept."""

    lab: str
    seed: int
    pods: int
    rate_per_s: float
    duration_s: float  # of each arm's load
    arms: tuple[str, ...]
    slow: float  # how much slower the slow pod is
    hang_s: float  # how long the hanging pod stands still, from half of the duration on
    body_mode: BodyMode
    substrate: Kind | None  # None: what this machine allows
    keep: bool
    load: bool


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One simulated engine."""

    host: str
    port: int
    control_port: int | None
    pod: str
    model_name: str
    model: Model
    knobs: Knobs
    idle_timeout_s: float
    prefix_cache_tokens: int
    log: Path | None


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """One load against one address."""

    host: str
    port: int
    model_name: str
    seed: int
    rate_per_s: float
    duration_s: float
    arrivals: Arrivals
    lengths: str
    stream_share: float
    keep_alive: bool
    part: tuple[int, int]  # this one of so many: every so manyth request
    start_at_s: float | None  # on the machine's monotonic clock; None: at once
    out: Path | None


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """Policies against each other in the lab: which, in what, how often and how long."""

    lab: str
    seed: int
    pods: int
    rate_per_s: float
    duration_s: float  # of each arm's load
    rounds: int
    scenarios: tuple[str, ...]
    policies: tuple[str, ...]
    limit_s: float  # no arm begins after it
    substrate: Kind | None
    out: Path | None


Config = DemoConfig | EngineConfig | LoadConfig | CompareConfig | SteerConfig


def parse(arguments: Sequence[str]) -> Config:
    """The configuration of one command. Faults print one line to stderr and exit with status 2."""
    flags = _parser().parse_args(arguments)
    if flags.command == "engine":
        return EngineConfig(
            host=flags.host,
            port=flags.port,
            control_port=flags.control_port,
            pod=flags.pod,
            model_name=flags.model,
            model=Model(**{field.name: getattr(flags, field.name) for field in fields(Model)}),
            knobs=Knobs(flags.slow, flags.header == "early", flags.keep_alive),
            idle_timeout_s=flags.idle_timeout,
            prefix_cache_tokens=flags.prefix_cache_tokens,
            log=flags.log,
        )
    if flags.command == "load":
        return LoadConfig(
            host=flags.host,
            port=flags.port,
            model_name=flags.model,
            seed=flags.seed,
            rate_per_s=flags.rate,
            duration_s=flags.duration,
            arrivals=Arrivals(flags.arrivals),
            lengths=flags.lengths,
            stream_share=flags.stream_share,
            keep_alive=not flags.new_connections,
            part=flags.part,
            start_at_s=flags.start_at,
            out=flags.out,
        )
    if flags.command == "compare":
        return CompareConfig(
            lab=flags.name,
            seed=flags.seed,
            pods=flags.pods,
            rate_per_s=flags.rate,
            duration_s=flags.duration,
            rounds=flags.rounds,
            scenarios=flags.scenarios,
            policies=flags.policies,
            limit_s=flags.limit,
            substrate=None if flags.substrate == "auto" else Kind(flags.substrate),
            out=flags.out,
        )
    if flags.command == "steer":
        return SteerConfig(**{field.name: getattr(flags, field.name) for field in fields(SteerConfig)})
    demo = flags.command == "demo"
    return DemoConfig(
        lab=flags.name,
        seed=flags.seed,
        pods=flags.pods,
        rate_per_s=flags.rate if demo else 0.0,
        duration_s=flags.duration if demo else 0.0,
        arms=flags.arms if demo else ARMS,
        slow=flags.slow,
        hang_s=flags.hang if demo else 0.0,
        body_mode=BodyMode(flags.body_mode.upper()),
        substrate=None if flags.substrate == "auto" else Kind(flags.substrate),
        keep=flags.keep if demo else True,
        load=demo,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line instead of after a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sonde-lab", description="Sonde on one Linux machine, without Kubernetes.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    demo = commands.add_parser(
        "demo", help="four pods, one slow and one that hangs: Sonde against Envoy's own balancers", allow_abbrev=False
    )
    _add_lab(demo)
    _add_contest(demo)
    _add_lab(commands.add_parser("up", help="the lab without load, until Ctrl-C", allow_abbrev=False))
    _add_compare(commands.add_parser("compare", help="policies against each other, live", allow_abbrev=False))
    add_flags(commands.add_parser("steer", help="direct clients of a Service, steered or not", allow_abbrev=False))
    _add_engine(commands.add_parser("engine", help="one simulated engine", allow_abbrev=False))
    _add_load(commands.add_parser("load", help="send one load to one address", allow_abbrev=False))
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of arrivals, lengths and ties (default %(default)s)")
    add("--pods", type=number(int, 3, 32), default=4, metavar="N", help="default %(default)s")
    add(
        "--substrate",
        choices=("auto", *(kind.value for kind in Kind)),
        default="auto",
        help="how pods are placed; auto takes namespaces where root and BPF are there (default %(default)s)",
    )
    add(
        "--name",
        type=name,
        default=DEFAULT_LAB,
        help="prefix of everything made on this machine (default %(default)s)",
    )


def _add_lab(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_place(parser)
    add(
        "--slow",
        type=number(float, 1, 100),
        default=2.5,
        metavar="FACTOR",
        help="how much longer the second pod's steps take (default %(default)s)",
    )
    add(
        "--body-mode",
        choices=[mode.value.lower() for mode in BodyMode if mode.shows_body],
        default=BodyMode.FULL_DUPLEX_STREAMED.value.lower(),
        help="how Envoy gives bodies to the controller (default %(default)s)",
    )


def _add_contest(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rate", type=number(float, 0.1, 200), default=17.0, metavar="REQ/S", help="default %(default)s")
    add(
        "--duration",
        type=number(float, 1, 3600),
        default=16.0,
        metavar="SECONDS",
        help="of each arm's load (default %(default)s)",
    )
    add(
        "--hang",
        type=number(float, 0.1, 50),
        default=5.0,
        metavar="SECONDS",
        help="how long the third pod stands still from half time on (default %(default)s)",
    )
    add("--arms", type=_arms, default=ARMS, metavar="A,B", help=f"which to run, in order (default {','.join(ARMS)})")
    add("--keep", action="store_true", help="leave the lab up after the load, until Ctrl-C")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_place(parser)
    parser.set_defaults(pods=6)
    add("--rate", type=number(float, 0.1, 200), default=20.0, metavar="REQ/S", help="default %(default)s")
    add(
        "--duration",
        type=number(float, 2, 3600),
        default=15.0,
        metavar="SECONDS",
        help="of each arm's load (default %(default)s)",
    )
    add(
        "--rounds",
        type=number(int, 1, 100),
        default=3,
        metavar="N",
        help="each with its own arrivals, the same for all policies (default %(default)s)",
    )
    add(
        "--scenarios",
        type=some_of(SCENARIOS),
        default=tuple(SCENARIOS),
        metavar="A,B",
        help=f"of {','.join(SCENARIOS)} (default all)",
    )
    add(
        "--policies",
        type=some_of(POLICIES),
        default=COMPARED,
        metavar="A,B",
        help=f"of {','.join(POLICIES)} (default {','.join(COMPARED)})",
    )
    add(
        "--limit",
        type=number(float, 1, 1e6),
        default=3600.0,
        metavar="SECONDS",
        help="after which no further arm begins (default %(default)s)",
    )
    add("--out", type=Path, metavar="DIR", help="folder for the table, the numbers and pictures (default: print only)")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    defaults = Model()
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="default %(default)s")
    add("--port", type=number(int, 0, 65535), default=8000, help="default %(default)s")
    add("--control-port", type=number(int, 0, 65535), help="a second port for /lab/knobs (default: none)")
    add("--pod", default="pod-1", metavar="NAME", help="sent as x-sonde-pod (default %(default)s)")
    add("--model", default=MODEL, metavar="NAME", help="the model's name (default %(default)s)")
    positive = number(float, 0, 1e6)
    add("--step-s", type=positive, default=defaults.step_s, help="of an empty step (default %(default)s)")
    add("--sequence-s", type=positive, default=defaults.sequence_s, help="more for each sequence (default %(default)s)")
    add("--kv-token-s", type=positive, default=defaults.kv_token_s, help="for each token held (default %(default)s)")
    add(
        "--prefill-token-s",
        type=positive,
        default=defaults.prefill_token_s,
        help="for each prompt token computed (default %(default)s)",
    )
    count = number(int, 1, 1 << 30)
    add("--max-sequences", type=count, default=defaults.max_sequences, help="at once (default %(default)s)")
    add("--max-step-tokens", type=count, default=defaults.max_step_tokens, help="in one step (default %(default)s)")
    add("--kv-tokens", type=count, default=defaults.kv_tokens, help="that memory holds (default %(default)s)")
    add("--slow", type=number(float, 0.001, 1000), default=1.0, metavar="FACTOR", help="of every step (default 1)")
    add(
        "--header",
        choices=("early", "late"),
        default="early",
        help="early: at once, as vLLM; late: with the first token, as Triton (default %(default)s)",
    )
    add(
        "--keep-alive",
        type=number(float, 0.001, 3600),
        metavar="SECONDS",
        help="interval of SSE comments before the first token (default: none)",
    )
    add(
        "--idle-timeout",
        type=number(float, 0.01, 1e6),
        default=5.0,
        metavar="SECONDS",
        help="after which an idle connection is closed (default %(default)s, as vLLM)",
    )
    add(
        "--prefix-cache-tokens",
        type=number(int, 0, 1 << 30),
        default=0,
        metavar="TOKENS",
        help="of earlier prompts that need not be computed again (default %(default)s)",
    )
    add("--log", type=Path, metavar="FILE", help="one JSON line for each request, times from the monotonic clock")


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="default %(default)s")
    add("--port", type=number(int, 1, 65535), default=8080, help="default %(default)s")
    add("--model", default=MODEL, metavar="NAME", help="the model's name (default %(default)s)")
    add("--seed", type=int, default=1, help="of arrivals and lengths (default %(default)s)")
    add("--rate", type=number(float, 0.01, 1000), default=10.0, metavar="REQ/S", help="default %(default)s")
    add("--duration", type=number(float, 0.1, 3600), default=10.0, metavar="SECONDS", help="default %(default)s")
    add("--arrivals", choices=[kind.value for kind in Arrivals], default="poisson", help="default %(default)s")
    add("--lengths", choices=sorted(LENGTHS), default="azure-conv", help="default %(default)s")
    add("--stream-share", type=number(float, 0, 1), default=1.0, metavar="SHARE", help="default %(default)s")
    add("--new-connections", action="store_true", help="one for each request, as clients without keep-alive make")
    add("--part", type=which_part, default=(1, 1), metavar="K/N", help="only each Nth request, from the Kth on")
    add("--start-at", type=float, metavar="SECONDS", help="of the machine's monotonic clock (default: at once)")
    add("--out", type=Path, metavar="FILE", help="one JSON line for each request")


def _arms(text: str) -> tuple[str, ...]:
    arms = tuple(text.split(","))
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise argparse.ArgumentTypeError(f"got {unknown[0]!r}, expected some of {','.join(ARMS)}")
    return arms
