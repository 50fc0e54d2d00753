"""What weights for connections cost a controller: CPU of the looks of a second, and of a frame for one agent.

python -m bench.weights. No sockets: the table, the prices and the scale are the controller's own; counts come in frames
as agents send them, and all of them change between two looks.
"""

from __future__ import annotations

import time
from random import Random

from agent.cluster.objects import Pod, Pool, cluster_of
from controller.endpoints.table import Table
from controller.model import ClusterChanged, FrameReceived, KernelSignal, Report
from controller.weights.weighing import LOOK_S, Weighing

GROUP, PORT = "inference.networking.k8s.io", 8000
LABELS = {"app": "llm"}
SIZES = (10, 100, 1000, 5000)
LOOKS = 100
FRAMES = 20


def weighing(pods: int) -> Weighing:
    table = Table(GROUP, "default", "p")
    pool = Pool("default", "p", GROUP, "v1", LABELS, (PORT,), "FailClose", "")
    table.apply(ClusterChanged(cluster_of([pool, *map(pod, range(pods))])), 0.0)
    return Weighing(table)


def pod(at: int) -> Pod:
    ip = f"10.{at // 62500}.{at // 250 % 250}.{at % 250 + 1}"
    return Pod("default", f"pod-{at}", f"uid-{at}", LABELS, {}, ip, "n", True, False)


def counts(pods: int, rng: Random, now: float) -> FrameReceived:
    reports = []
    for at in range(pods):
        busy = rng.randint(0, 20)
        kernel = KernelSignal(now, busy, busy // 4, round(now * 10), round(now * 100), now, 0.1, 0.01, 0.01)
        reports.append(Report("default", f"pod-{at}", f"uid-{at}", PORT, kernel, None))
    return FrameReceived("n", True, reports, now)


def cost(pods: int) -> tuple[float, float, int]:
    """CPU seconds of a second of looks and of a frame, and the frame's bytes."""
    made, rng = weighing(pods), Random(1)
    looking_s = 0.0
    for step in range(LOOKS):
        now = step * LOOK_S
        made.table.apply(counts(pods, rng, now), now)
        began_s = time.process_time()
        made.look(now, synced=True)
        looking_s += time.process_time() - began_s
    began_s = time.process_time()
    for _ in range(FRAMES):
        size = len(made.frame().SerializeToString())
    return looking_s / (LOOKS * LOOK_S), (time.process_time() - began_s) / FRAMES, size


def main() -> None:
    print("| endpoints | looking, of a core | a frame | its bytes |\n|---|---|---|---|")
    for pods in SIZES:
        looking_s, frame_s, size = cost(pods)
        print(f"| {pods} | {looking_s:.2%} | {frame_s * 1e6:.0f} us | {size} |", flush=True)


if __name__ == "__main__":
    main()
