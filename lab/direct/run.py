"""`sonde-lab steer`: the same arrivals of direct clients by kube-proxy's choice and steered, and a table of both.

Owns the order of arms; arms change their order from round to round, so that a machine that grows slower harms none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from lab import wire
from lab.config import Kind
from lab.direct import ground, report
from lab.direct.config import ARMS, KUBE_PROXY, STEER, SteerConfig
from lab.direct.ground import NODES, NodesGround
from lab.direct.site import Site, arm, standing
from lab.looking.faults import leaves
from lab.machine import ending, home, substrate
from lab.machine.home import Home
from lab.machine.processes import ProcessError
from lab.machine.stack import SLOW_POD
from lab.machine.substrate import GroundError

T = TypeVar("T")

SETTLE_S = 4.0  # agents are heard, and a controller that has just come tells its first weights
REST_S = 2.0  # between two arms: the pods are idle again


def main(config: SteerConfig) -> int:
    """0 with a table; 1 if the lab could not stand, 130 if stopped before."""
    if config.out is not None and not config.out.parent.is_dir():
        print(f"sonde-lab: --out {config.out}: there is no such folder")
        return 1
    status = 1
    try:
        _on_ground(config)
        status = 0
    except* (ProcessError, GroundError, home.HomeError, wire.CallError, OSError) as failed:
        for line in leaves(failed):
            print(f"sonde-lab: {line}")
    except* (KeyboardInterrupt, asyncio.CancelledError):
        print("sonde-lab: stopped")
        status = 130
    return status


def _on_ground(config: SteerConfig) -> None:
    substrate.choose(config.lab, Kind.NAMESPACES)  # nothing less will do; raises GroundError
    ending.obey()
    with contextlib.ExitStack() as held:
        folder, _ = held.enter_context(home.taken(config.lab))
        for line in ground.clear(config.lab):
            _say(f"removed what a killed lab left: {line}")
        place = held.enter_context(ground.stand(config.lab, config.pods, config.seed, KUBE_PROXY in config.arms))
        held.callback(ending.ignore)  # runs first: nothing shall interrupt the removal
        rounds = ending.run(_rounds(place, folder, config))
    lines = _lines(rounds, config)
    print("\n".join(lines))
    if config.out is not None:
        config.out.write_text("\n".join(lines) + "\n")


async def _rounds(place: NodesGround, folder: Home, config: SteerConfig) -> list[report.Came]:
    arms = [(name, number) for number in range(config.rounds) for name in _turned(config.arms, number)]
    minutes = len(arms) * (config.warmup_s + config.duration_s + SETTLE_S + 10.0) / 60
    _say(f"{len(arms)} arms, about {minutes:.0f} min; compiling the programs first takes some seconds")
    rounds = []
    async with standing(place, folder, config.slow, set(config.arms) != {KUBE_PROXY}) as site:
        for at, (name, number) in enumerate(arms):
            if at > 0:
                await asyncio.sleep(REST_S)
            rounds.append(await _watched(_arm(site, name, config, config.seed + number), site))
            _say(f"{name}, round {number + 1}: {len(rounds[-1].results)} requests after the warm-up")
    return rounds


async def _arm(site: Site, name: str, config: SteerConfig, seed: int) -> report.Came:
    async with arm(site, name, seed):
        await asyncio.sleep(SETTLE_S)
        results = await site.load(config, seed, name)
        told = await told_weights(site) if name == STEER else {}
    return report.came(name, results, config.warmup_s, told)


async def told_weights(site: Site) -> Mapping[str, float]:
    """The weight of each pod as the controller told it last. Raises CallError."""
    state = json.loads(await wire.get(site.ground.controller_ip, site.ground.ports.metrics, "/state", timeout_s=10))
    return {pod["pod"]: pod["weight"] for pod in state["pods"] if pod["weight"] is not None}


async def _watched(work: Awaitable[T], site: Site) -> T:
    """What comes of it, unless a process of the lab ends first. Raises ProcessError then."""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(site.broken(), name="processes")
        found = await work
        watch.cancel()
    return found


def _turned(names: Sequence[str], number: int) -> Sequence[str]:
    at = number % len(names)
    return (*names[at:], *names[:at])


def _lines(rounds: Sequence[report.Came], config: SteerConfig) -> list[str]:
    pods = [substrate.pod_name(at) for at in range(config.pods)]
    of = sorted(rounds, key=lambda one: config.arms.index(one.arm))
    return [
        f"{config.pods} pods on {NODES} nodes, a client on each, {config.rate_per_s:g} requests/s together, a new "
        f"connection for each, {config.duration_s:g} s after {config.warmup_s:g} s of warm-up, {config.rounds} rounds, "
        f"seed {config.seed}. Programs, agents, controller and sockets are real; engines are simulated. "
        "Ratios are over the first arm, with the same arrivals.",
        "",
        *(f"- {name}: {ARMS[name]}" for name in config.arms),
        "",
        *report.table(of, pods, {pods[SLOW_POD]: f"{config.slow:g}x slow"}),
        *report.errors(of),
    ]


def _say(what: str) -> None:
    print(f"... {what}", flush=True)
