"""The simulated engine's metrics page, with vLLM's names and labels. Knows what is counted, not how it comes about."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

# vLLM's own buckets
TTFT_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
GAP_BOUNDS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class Histogram:
    """Counts of observations by upper bound, with their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True)
class Totals:
    """What an engine has counted since it started."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0
    aborted: int = 0
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_BOUNDS_S))
    gap: Histogram = field(default_factory=lambda: Histogram(GAP_BOUNDS_S))
    duration: Histogram = field(default_factory=lambda: Histogram(TTFT_BOUNDS_S))


def render(model: str, running: int, waiting: int, kv_cache_usage: float, kv_tokens: int, totals: Totals) -> bytes:
    """The page as vLLM would print it; `kv_cache_usage` is a share from 0 to 1."""
    labels = f'engine="0",model_name="{model}"'
    lines = [
        *_family("num_requests_running", "gauge", [(labels, running)]),
        *_family("num_requests_waiting", "gauge", [(labels, waiting)]),
        *_family("kv_cache_usage_perc", "gauge", [(labels, kv_cache_usage)]),
        *_family("cache_config_info", "gauge", [(f'block_size="16",num_gpu_blocks="{kv_tokens // 16}",engine="0"', 1)]),
        *_family("prompt_tokens_total", "counter", [(labels, totals.prompt_tokens)]),
        *_family("generation_tokens_total", "counter", [(labels, totals.generated_tokens)]),
        *_family(
            "request_success_total",
            "counter",
            [
                (f'{labels},finished_reason="length"', totals.finished),
                (f'{labels},finished_reason="abort"', totals.aborted),
            ],
        ),
        *_histogram("time_to_first_token_seconds", labels, totals.ttft),
        *_histogram("inter_token_latency_seconds", labels, totals.gap),
        *_histogram("e2e_request_latency_seconds", labels, totals.duration),
    ]
    return "\n".join(lines).encode() + b"\n"


def _family(name: str, kind: str, samples: list[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP vllm:{name} Simulated by sonde-lab."
    yield f"# TYPE vllm:{name} {kind}"
    for labels, value in samples:
        yield f"vllm:{name}{{{labels}}} {float(value)}"


def _histogram(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    yield from _family(name, "histogram", [])
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        yield f'vllm:{name}_bucket{{{labels},le="{bound}"}} {float(total)}'
    yield f"vllm:{name}_count{{{labels}}} {float(total)}"
    yield f"vllm:{name}_sum{{{labels}}} {histogram.sum}"
