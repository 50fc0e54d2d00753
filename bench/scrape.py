"""What one scrape of the metrics pages costs: processor time and size, with many pods.

    python -m bench.scrape [--pods N] [--times N]

The pages are made from real structures filled with made-up counts, and fetched over HTTP compressed, as Prometheus
does; the time is the whole process's, the client's part included. The client of Prometheus's own Python library, which
builds an object for each sample, writes the same page for comparison.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from random import Random

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from agent.cluster.objects import Pod, Pool, cluster_of
from agent.exporting import metrics_server
from agent.exporting.metrics import AgentPage
from agent.exporting.snapshot import AgentState, PodState, SlotState, Snapshot
from agent.kernel import layout
from agent.placing.slots import Owner
from agent.signals import FIELDS
from controller.endpoints.table import Table
from controller.exporting.counts import Counts
from controller.exporting.metrics import ControllerPage
from controller.exporting.snapshot import Totals, snapshot
from controller.model import ClusterChanged, FrameReceived, KernelSignal, Report, Request

GROUP = "inference.networking.k8s.io"
MODELS = 100
# of pods that speak HTTP in clear text; the others' series are not there where nothing was counted
USUAL = ("upload_hist", "header_hist", "ttft_hist", "gap_hist", "duration_hist", "read_delay_hist")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pods", type=int, default=200)
    options.add_argument("--times", type=int, default=30)
    arguments = options.parse_args()
    print(f"{arguments.pods} pods, {arguments.times} scrapes each, gzip; processor time of client and server")
    agent, controller = agent_page(arguments.pods), controller_page(arguments.pods)
    for name, page in (("agent", agent), (f"controller, {MODELS} models", controller)):
        size_bytes, cost_ms = cost(page, arguments.times)
        lines = "".join(page()).count("\n")
        print(f"  {name:24} {lines:7} lines {size_bytes / 1024:7.0f} KiB sent   {cost_ms:6.1f} ms")
    theirs = library("".join(agent()))
    theirs_ms = min(timed(lambda: generate_latest(theirs)) for _ in range(3)) * 1e3
    ours_ms = min(timed(lambda: "".join(agent())) for _ in range(3)) * 1e3
    print(f"  the agent's page written only {ours_ms:6.1f} ms, by prometheus_client {theirs_ms:6.1f} ms")
    return 0


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def cost(page: Callable[[], Iterable[str]], times: int) -> tuple[int, float]:
    """Bytes sent and the median processor milliseconds of one scrape."""
    port, close = metrics_server.serve(page, "127.0.0.1", 0)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept-Encoding": "gzip"})

    def scrape() -> int:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return len(answer.read())

    try:
        size_bytes = scrape()
        costs_s = sorted(timed(scrape) for _ in range(times))
    finally:
        close()
    return size_bytes, costs_s[len(costs_s) // 2] * 1e3


def agent_page(pods: int) -> Callable[[], Iterable[str]]:
    """Copies whole slots and rows at each scrape, as the agent does."""
    random = np.random.default_rng(1)
    memory = np.zeros(pods, layout.SLOT)
    for name in USUAL:
        memory[name] = random.integers(0, 1000, (pods, layout.BUCKETS))
    for name in FIELDS:
        memory[name] = random.integers(0, 1 << 30, pods)

    rows = np.array([memory[name].astype(np.int64) for name in FIELDS]).T.tolist()
    opaque = memory.view(f"V{layout.SLOT.itemsize}")

    def take() -> Snapshot:
        states = []
        for number in range(pods):
            histograms = np.frombuffer(opaque[number].tobytes(), layout.SLOT)[0]
            states.append(
                PodState("default", pod_name(number), [SlotState(Owner(number, 1), rows[number], histograms)])
            )
        return Snapshot(1 << 40, states, AgentState({}, 1, 2, 1, 0, 2, {}, 1, 1, 1, 1, 1.0, 1))

    return AgentPage(take).page


def pod_name(number: int) -> str:
    return f"vllm-llama-3-8b-instruct-7d9f8b6c5d-{number:05}"


def controller_page(pods: int) -> Callable[[], Iterable[str]]:
    table, random = Table(GROUP, "default", "llm"), Random(1)
    labels = {"app": "llm"}
    of_pool = [
        Pod("default", pod_name(n), f"u{n}", labels, {}, f"10.0.{n // 250}.{n % 250 + 1}", "n", True, False)
        for n in range(pods)
    ]
    pool = Pool("default", "llm", GROUP, "v1", labels, (8000,), "FailClose", "")
    table.apply(ClusterChanged(cluster_of([pool, *of_pool])), 0.0)
    signals = [KernelSignal(0.0, 3, 1, 100, 100, 0.0, 0.3, 0.02) for _ in of_pool]
    reports = [
        Report(pod.namespace, pod.name, pod.uid or "", 8000, signal, None)
        for pod, signal in zip(of_pool, signals, strict=True)
    ]
    table.apply(FrameReceived("n", True, reports), 0.0)
    counts = Counts()
    for number in range(50 * MODELS):
        series = counts.picked(Request("/", f"model-{number % MODELS}", None), random.expovariate(1e5), size_bytes=1000)
        counts.ended(series, random.expovariate(0.5))
    return ControllerPage(lambda: snapshot(table, Totals(), counts.view(), 0.1)).page


def library(page: str) -> CollectorRegistry:
    """The same samples as prometheus_client's own objects."""
    read = list(text_string_to_metric_families(page))
    registry = CollectorRegistry()
    registry.register(_Copy(read))
    return registry


class _Copy(Collector):
    def __init__(self, read: list[Metric]) -> None:
        self._read = read

    def collect(self) -> list[Metric]:
        return [_built(family) for family in self._read]


def _built(family: Metric) -> Metric:
    names = [name for name in (family.samples[0].labels if family.samples else {}) if name != "le"]
    if family.type == "histogram":
        made = HistogramMetricFamily(family.name, family.documentation, labels=names)
        held: dict[tuple[str, ...], list[tuple[str, float]]] = {}
        for sample in family.samples:
            key = tuple(sample.labels[name] for name in names)
            if sample.name.endswith("_bucket"):
                held.setdefault(key, []).append((sample.labels["le"], sample.value))
            elif sample.name.endswith("_sum"):
                made.add_metric(key, held[key], sample.value)
        return made
    kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
    other = kind(family.name, family.documentation, labels=names)
    for sample in family.samples:
        other.add_metric([sample.labels[name] for name in names], sample.value)
    return other


if __name__ == "__main__":
    sys.exit(main())
