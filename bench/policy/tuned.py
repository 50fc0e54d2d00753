"""Constants of peers that a grid search found best (`python -m bench.policy.tune`), beside their defaults."""

from __future__ import annotations

from typing import Any

TUNED: dict[str, dict[str, Any]] = {
    "peak-ewma": {"decay_s": 30.0, "default_s": 0.3},
    "prequal": {"q_rif": 0.25, "probes": 5},
    "vllm-dp": {"waiting": 16.0},
    "llm-d": {"weights": (1.0, 20.0, 6.0)},
    "dynamo": {"prefill_scale": 32.0},
    "sglang": {"absolute": 64.0, "relative": 1.0, "match": 0.3},
    "aibrix-prefix": {"imbalance": 64.0, "deviations": 2.0},
    "predicted-latency": {"weights": (0.95, 0.05), "affinity": 2.0, "most_penalty_s": 0.1},
}
