"""The rules of other pickers and balancers, from their documented formulas and defaults; to compare with, and to run.

Each is a pure function over the same Fleet as our own rule, so that what differs is the rule. What a rule would read
from its own scraping it reads from the engine's fields, what it counts itself from the own ones.
"""

from __future__ import annotations

from controller.policies.fleet import Policy
from controller.policies.peers import aibrix, dynamo, ewma, gie, lmetric, predicted, prequal, sglang, simple, vllm

PEERS: dict[str, Policy] = {
    "random": simple.RANDOM,
    "round-robin": simple.ROUND_ROBIN,
    "p2c": simple.P2C,
    "least-request": simple.LEAST_REQUEST,
    "peak-ewma": ewma.PEAK_EWMA,
    "prequal": prequal.PREQUAL,
    "vllm-dp": vllm.VLLM_DP,
    "gie-v0.3": gie.TREE,
    "gie-v1": gie.SCORERS,
    "llm-d": gie.SCORERS,
    "lmetric": lmetric.LMETRIC,
    "dynamo": dynamo.DYNAMO,
    "sglang": sglang.SGLANG,
    "aibrix-prefix": aibrix.AIBRIX,
    "predicted-latency": predicted.PREDICTED,
}
