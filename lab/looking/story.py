"""What the demo says: the scenario, what came of it, and how to look around in a lab that is up. Pure text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lab.config import DemoConfig, Kind
from lab.contests import contest, summary
from lab.contests.contest import Arm
from lab.contests.summary import Hang, Summary
from lab.contests.workload import Request, Workload
from lab.machine.home import Home
from lab.machine.stack import HUNG_POD, SLOW_POD
from lab.machine.substrate import Ground

HUNG_LIMIT_MS = 500.0  # nothing is sent to a hung pod later than this after its last byte
P99_TIMES = 3.0  # by how much the time to first token shall be better than round robin's


def workload(config: DemoConfig) -> Workload:
    return Workload(config.rate_per_s, config.duration_s, output_scale=0.12, min_output_tokens=4)


def scenario(config: DemoConfig, requests: Sequence[Request], ground: Ground) -> list[str]:
    """The contest in words."""
    output = sum(request.output_tokens for request in requests) / max(1, len(requests))
    prompt = sum(request.prompt_tokens for request in requests) / max(1, len(requests))
    names = [pod.name for pod in ground.pods]
    return [
        f"{len(names)} pods ({ground.kind.value}); {names[SLOW_POD]} is {config.slow:g} times slower than the others;"
        f" {names[HUNG_POD]} stands still for {config.hang_s:g} s from second {config.duration_s / 2:g} on.",
        f"{len(requests)} streamed requests in {config.duration_s:g} s (Poisson, {config.rate_per_s:g}/s; on average"
        f" {prompt:.0f} prompt and {output:.0f} output tokens), the same to each arm.",
    ]


def outcome(arms: Sequence[Arm], ground: Ground) -> list[str]:
    """The table, errors if any, when the hung pod got its last request, and whether Sonde kept its word."""
    summaries = [summary.summarize(contest.LISTENERS[arm.name], arm.results) for arm in arms]
    names = [pod.name for pod in ground.pods]
    said = summary.table(summaries, {name: f"{name}{_particular(index)}" for index, name in enumerate(names)})
    said += [f"{one.arm}: {count} requests failed: {error}" for one in summaries for error, count in one.errors.items()]
    said.append("")
    said += [f"{contest.LISTENERS[arm.name]}: {hung(arm.hang, names[HUNG_POD])}" for arm in arms]
    by_name = dict(zip((arm.name for arm in arms), summaries, strict=True))
    if (sonde := next((arm for arm in arms if arm.name == "sonde"), None)) is not None:
        said += ["", hung_verdict(sonde.hang)]
        if "round_robin" in by_name:
            said.append(p99_verdict(by_name["sonde"], by_name["round_robin"]))
        if ground.kind is Kind.LOOPBACK:
            said.append("           (these need the kernel's counts, which this run had to do without)")
    return said


def _particular(index: int) -> str:
    return " (slow)" if index == SLOW_POD else " (hung)" if index == HUNG_POD else ""


def hung(hang: Hang | None, pod: str) -> str:
    """When requests still came to a hung pod."""
    if hang is None:
        return f"{pod} did not hang, or had answered nothing before"
    if hang.last_arrival_ms is None:
        return f"no request was sent to {pod} after its last byte before the hang"
    count = len(hang.arrivals_ns)
    what = "the only request" if count == 1 else f"the last of {count} requests"
    return f"{what} sent to the hung {pod} came {hang.last_arrival_ms:.0f} ms after its last byte"


def hung_verdict(hang: Hang | None) -> str:
    wanted = f"No request to the hung pod later than {HUNG_LIMIT_MS:.0f} ms after its last byte"
    if hang is None:
        return f"not shown  {wanted}: it did not hang, or had answered nothing before."
    late = sum(at_ns - hang.last_data_ns > HUNG_LIMIT_MS * 1e6 for at_ns in hang.arrivals_ns)
    if not late:
        return f"reached    {wanted}."
    idle = "" if hang.owed else "; it owed nothing when it stopped, so its silence told nothing"
    return f"MISSED     {wanted}: {late} came later{idle}."


def p99_verdict(sonde: Summary, round_robin: Summary) -> str:
    ours, theirs = sonde.ttft_s[-1], round_robin.ttft_s[-1]
    wanted = f"TTFT p99 at least {P99_TIMES:g} times better than round robin's"
    if ours is None or theirs is None or ours <= 0:
        return f"not shown  {wanted}: there were no answers to compare."
    mark = "reached   " if theirs >= P99_TIMES * ours else "MISSED    "
    return f"{mark} {wanted}: {theirs / ours:.1f} times ({ours * 1e3:.0f} ms against {theirs * 1e3:.0f} ms)."


def how_to_look(ground: Ground, where: Home, page: str) -> list[str]:
    """What a curious person can do with a lab that is up."""
    ports = ground.ports
    enter = f"nsenter --net=/run/netns/{ground.node} " if ground.kind is Kind.NAMESPACES else ""
    first, measured = ground.pods[0], ground.pins is not None
    lines = [
        f"The lab is up. Ctrl-C or 'kill {os.getpid()}' takes it down.",
        f"  manifests  {where.manifests} (both daemons read changes)",
        f"  logs       {where.logs} (*.jsonl: what each engine really did)",
        f"  pods       {', '.join(f'{pod.name} {pod.ip}:{ports.engine}' for pod in ground.pods)}",
        f"  Envoy      {ground.node_ip}: {ports.sonde} Sonde, {ports.round_robin} round robin, "
        f"{ports.least_request} least request, {ports.admin} admin",
        f"  try        {enter}curl -N {ground.node_ip}:{ports.sonde}/v1/completions "
        """-d '{"model": "lab", "prompt": "hello", "max_tokens": 20, "stream": true}'""",
        f"  load       {enter}{sys.executable} -m lab load --host {ground.node_ip} --port {ports.sonde}",
        f"  live page  {page}",
        f"  tables     {enter}{sys.executable} -m controller top --address {ground.node_ip}:{ports.metrics}",
        *(
            [f"             {enter}{sys.executable} -m agent top --address {ground.node_ip}:{ports.agent_metrics}"]
            * measured
        ),
        f"  controller {enter}curl {ground.node_ip}:{ports.metrics}/metrics",
    ]
    if measured:
        lines.append(f"  agent      {enter}curl {ground.node_ip}:{ports.agent_metrics}/metrics")
    lines.append(
        f"  knobs      {enter}curl {first.ip}:{ports.control}/lab/knobs -d "
        """'{"slow": 3, "hang_s": 10, "header_early": false, "keep_alive_s": 1, "crash": true}'"""
    )
    return lines
