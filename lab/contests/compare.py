"""`sonde-lab compare`: the same arrivals under each policy through real gateways, controllers, agent and engines.

Owns the order of arms and what befalls the pods during each. Policies change their order from round to round, so that a
machine that grows slower harms none of them more than others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab import wire
from lab.config import MODEL, CompareConfig, Kind
from lab.contests import load, pairs, pictures, trials, verdict
from lab.contests.load import Result, Target
from lab.contests.trials import SCENARIOS, Trial, Turn
from lab.contests.verdict import Sample
from lab.contests.workload import Request, Workload, schedule
from lab.looking.faults import leaves
from lab.machine import ending, envoy, home, manifests, stack, substrate
from lab.machine.home import Home
from lab.machine.processes import ProcessError
from lab.machine.stack import Stack, StackError
from lab.machine.substrate import Ground, GroundError

PATIENCE_S = 60.0
SETTLE_S = 1.5  # streams of agents, means of nothing
REST_S = 0.5  # between two arms
BYPASS_PODS = 2
PREFIX_TOKENS = 16384
PAGES_S = 0.05  # what the pickers that read pages scrape by default
OVERHEAD_S = 6.0  # of an arm, for the estimate

FAILURES = (ProcessError, StackError, GroundError, stack.LoadRefused, home.HomeError, wire.CallError, OSError)


def main(config: CompareConfig) -> int:
    """0 with a table; 1 if the lab could not stand, 130 if stopped before."""
    status = 1
    try:
        _on_ground(config)
        status = 0
    except* FAILURES as failed:
        for line in leaves(failed):
            print(f"sonde-lab: {line}")
    except* (KeyboardInterrupt, asyncio.CancelledError):
        print("sonde-lab: stopped")
        status = 130
    return status


def _on_ground(config: CompareConfig) -> None:
    binary = envoy.find()
    if binary is None:
        raise StackError("no Envoy found: run 'make setup', or name its binary in $SONDE_ENVOY")
    choice = substrate.choose(config.lab, config.substrate)
    for line in choice.why:
        print(line)
    ending.obey()
    with contextlib.ExitStack() as held:
        folder, _ = held.enter_context(home.taken(config.lab))
        if choice.kind is Kind.NAMESPACES:
            substrate.clear(config.lab)
        ground = held.enter_context(substrate.stand(choice.kind, config.lab, config.pods, config.seed))
        held.callback(ending.ignore)  # runs first: nothing shall interrupt the removal
        samples: list[Sample] = []
        try:
            ending.run(_compare(ground, folder, binary, config, samples))
        finally:
            if samples:  # of a comparison that was stopped, too
                _report(samples, config)


async def _compare(ground: Ground, folder: Home, binary: Path, config: CompareConfig, samples: list[Sample]) -> None:
    """Adds a sample for each arm that came to its end."""
    arms = [
        (name, policy, number)
        for number in range(config.rounds)
        for name in config.scenarios
        for policy in _turned(config.policies, number)
    ]
    minutes = len(arms) * (config.duration_s + OVERHEAD_S) / 60
    _say(f"{len(arms)} arms of {config.duration_s:g} s, about {minutes:.0f} min")
    clock = asyncio.get_running_loop().time
    ends_s = clock() + config.limit_s
    async with stack.measured_pods(ground, folder, _say, PREFIX_TOKENS, PAGES_S) as lab:
        for name, policy, number in arms:
            if clock() > ends_s:
                _say(f"the limit of {config.limit_s:g} s is reached; {len(arms) - len(samples)} arms are left out")
                break
            trial = SCENARIOS[name]
            results = await _watched(_arm(lab, binary, trial, policy, number, config), lab)
            samples.append(verdict.sample(name, policy, number, results, PATIENCE_S, trial.budget_s))
            p99 = verdict.p99(samples[-1:], "ttft_s").value
            _say(f"{name}, {policy}, round {number + 1}: TTFT p99 {p99 * 1e3:.0f} ms, {samples[-1].failed} failed")


def _turned(policies: Sequence[str], number: int) -> Sequence[str]:
    at = number % len(policies)
    return (*policies[at:], *policies[:at])


async def _arm(lab: Stack, binary: Path, trial: Trial, policy: str, number: int, config: CompareConfig) -> list[Result]:
    seed = config.seed + number
    requests = schedule(trials.workload(trial, config.rate_per_s, config.duration_s), seed)
    requests = tuple(trials.classed(requests, trial, seed))
    await _prepare(lab, trial)
    more = ("--slo-ttft", f"{trial.budget_s:g}s") if trial.budget_s else ()
    async with pairs.gateways(lab, binary, policy, trial.pickers, seed, more) as ports:
        await asyncio.sleep(SETTLE_S)
        async with asyncio.TaskGroup() as group:
            happen = [group.create_task(_turn(lab, turn, config.duration_s)) for turn in trial.turns]
            group.create_task(_bypass(lab, trial, config, seed), name="bypass")
            sent = [
                group.create_task(_send(lab, requests[at :: len(ports)], port, policy)) for at, port in enumerate(ports)
            ]
        assert all(task.done() for task in happen)
    await _restore(lab)
    return [result for task in sent for result in task.result()]


async def _send(lab: Stack, requests: Sequence[Request], port: int, policy: str) -> tuple[Result, ...]:
    return await load.send(requests, Target(lab.ground.node_ip, port, MODEL, PATIENCE_S, policy))


async def _bypass(lab: Stack, trial: Trial, config: CompareConfig, seed: int) -> None:
    """Clients that know two pods' addresses and ask no gateway."""
    if not trial.bypass:
        return
    work = Workload(config.rate_per_s * trial.bypass / BYPASS_PODS, config.duration_s, output_scale=0.12)
    port = lab.ground.ports.engine
    async with asyncio.TaskGroup() as group:
        for at, pod in enumerate(lab.ground.pods[-BYPASS_PODS:]):
            target = Target(pod.ip, port, MODEL, PATIENCE_S, f"bypass-{at}")
            group.create_task(load.send(schedule(work, 1000 * (at + 1) + seed), target))


async def _prepare(lab: Stack, trial: Trial) -> None:
    """The pods as the scenario begins, and the classes of its requests."""
    manifests.write(lab.home.manifests, [manifests.objective(one.name, one.priority) for one in trial.classes])
    for index in range(len(lab.ground.pods)):
        slow = trial.slow * (trial.slow_pods if index % 2 else 1.0)
        await _knobs(lab, index, slow=slow)
        if index in trial.absent:
            _set_ready(lab, index, False)


async def _restore(lab: Stack) -> None:
    for index in range(len(lab.ground.pods)):
        await _knobs(lab, index, slow=1.0)
        _set_ready(lab, index, True)
    await asyncio.sleep(REST_S)


async def _turn(lab: Stack, turn: Turn, duration_s: float) -> None:
    await asyncio.sleep(turn.at * duration_s)
    if turn.slow is not None:
        await _knobs(lab, turn.pod, slow=turn.slow)
    if turn.hang is not None:
        await _knobs(lab, turn.pod, hang_s=turn.hang * duration_s)
    if turn.ready:
        _set_ready(lab, turn.pod, True)


async def _knobs(lab: Stack, index: int, **knobs: float) -> None:
    await wire.turn_knobs(lab.ground.pods[index].ip, lab.ground.ports.control, **knobs)


def _set_ready(lab: Stack, index: int, ready: bool) -> None:
    ground = lab.ground
    manifests.write(lab.home.manifests, [manifests.pod(ground.pods[index], ground.node, ground.ports.engine, ready)])


async def _watched(arm: object, lab: Stack) -> list[Result]:
    """The arm's results, unless a process of the lab ends first. Raises ProcessError then."""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(lab.broken(), name="processes")
        results: list[Result] = await arm  # type: ignore[misc]
        watch.cancel()
    return results


def _report(samples: Sequence[Sample], config: CompareConfig) -> None:
    what = {name: SCENARIOS[name].what for name in config.scenarios}
    lines = [
        f"{config.pods} pods, {config.rate_per_s:g} requests/s for {config.duration_s:g} s, {config.rounds} rounds."
        " Envoy, controllers, agent and sockets are real; engines are simulated."
        " Ratios are over the first policy: above 1 that one is better.",
        "",
        *(f"- {name}: {text}" for name, text in what.items()),
        "",
        *verdict.table(samples, what),
    ]
    if classes := verdict.classes(samples):
        lines += ["", *classes]
    print("\n".join(lines))
    if config.out is None:
        return
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "compare.md").write_text("\n".join(lines) + "\n")
    (config.out / "compare.json").write_text(json.dumps([asdict(one) for one in samples]))
    if pictures.possible():
        pictures.draw(config.out / "compare.svg", samples)
    else:
        print("no picture: matplotlib is not installed (pip install 'sonde[dev]')")
    print(f"written to {config.out}")


def _say(what: str) -> None:
    print(f"... {what}", flush=True)
