"""`python -m bench.policy.sockets`: the simulation against the lab's engines behind real sockets.

The same requests go over HTTP to four engines of the lab, which compute in real time, and to four simulated ones with
the same constants. Both take turns, so that no picker is involved: what is compared is the engine, its queue and its
steps. Steps take SLOW times as long as by default: some milliseconds of scheduling on a busy machine shall not decide.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.policy.hardware import Gpu
from bench.policy.picker import Rival
from bench.policy.requests import Request
from bench.policy.simulation import Plant, Simulation
from controller.policies.peers import PEERS
from lab.config import MODEL
from lab.contests import load, workload
from lab.contests.load import Target
from lab.contests.workload import Workload
from lab.engines.batching import Model
from lab.machine import processes
from lab.machine.substrate import program

ENGINES = 4
HOST = "127.0.0.1"
SLOW = 2.5
LOAD = Workload(8.0, 45.0, output_scale=0.12, min_output_tokens=4)
SEED = 7
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
LIMIT = 0.1
LISTEN_S = 20.0
LOOPBACK_S = 0.0005  # one way: a write, a wake-up and parsing


def simulated(schedule: Sequence[workload.Request]) -> list[float]:
    """Times to first token, in order."""
    model = Model()
    costs = (model.step_s, model.sequence_s, model.kv_token_s, model.prefill_token_s)
    gpu = Gpu(*costs, 0.0, model.kv_tokens, model.max_sequences, model.max_step_tokens, block_tokens=1)
    sent = [Request(one.at_s, one.prompt_tokens, one.output_tokens, bypass_pod=one.index % ENGINES) for one in schedule]
    simulation = Simulation(Plant((gpu,) * ENGINES), Rival("turns", PEERS["round-robin"]), sent, SEED)
    for pod in simulation.pods:
        pod.one_way_s = LOOPBACK_S
        pod.engine.set_speed(SLOW, SLOW, 0.0)
    simulation.run(LOAD.duration_s + 60)
    return [one.ttft_s for one in sent]


async def real(schedule: Sequence[workload.Request]) -> list[float]:
    """The same, measured at the client."""
    ports = [_free_port() for _ in range(ENGINES)]
    with tempfile.TemporaryDirectory() as folder:
        engines = []
        try:
            for number, port in enumerate(ports):
                command = program(
                    "lab", "engine", "--host", HOST, "--port", str(port), "--pod", f"pod-{number}", "--slow", str(SLOW)
                )
                engines.append(await processes.start(f"pod-{number}", command, Path(folder)))
            for engine, port in zip(engines, ports, strict=True):
                await processes.listening(engine, HOST, port, LISTEN_S)
            results = await asyncio.gather(
                *(load.send(schedule[number::ENGINES], Target(HOST, port, MODEL)) for number, port in enumerate(ports))
            )
        finally:
            for engine in engines:
                await engine.stop()
    answered = {one.request.index: one.ttft_s for part in results for one in part}
    return [answered[one.index] or float("nan") for one in schedule]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def main() -> int:
    schedule = workload.schedule(LOAD, SEED)
    print(f"... {len(schedule)} requests to {ENGINES} engines over {LOAD.duration_s:g} s", flush=True)
    wall, model = (np.array(times) * 1e3 for times in (asyncio.run(real(schedule)), simulated(schedule)))
    print(f"{'TTFT':>8} {'sockets':>10} {'simulated':>10}")
    worst = 0.0
    for share in SHARES:
        measured, expected = np.nanquantile(wall, share), np.quantile(model, share)
        worst = max(worst, abs(measured / expected - 1))
        print(
            f"{f'p{share * 100:g}':>8} {measured:7.1f} ms {expected:7.1f} ms {(measured / expected - 1) * 100:+6.1f} %"
        )
    same = np.nanmedian(np.abs(wall - model))
    print(f"same request, median difference {same:.1f} ms; {np.isnan(wall).sum()} unanswered")
    print(
        f"{'reached' if worst <= LIMIT else 'MISSED'}: within {LIMIT * 100:g} % at every quantile ({worst * 100:.1f} %)"
    )
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
