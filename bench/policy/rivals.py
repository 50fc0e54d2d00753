"""Who takes part: each policy with what its picker is shown, by name; told and tuned variants of peers included.

A name may end in `@` and seconds, which is how often pages are scraped instead of by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.policy import hardware
from bench.policy.hardware import Gpu
from bench.policy.picker import Rival
from bench.policy.tuned import TUNED
from controller.policies.admission import Budgets
from controller.policies.fleet import Policy
from controller.policies.kept import Prices
from controller.policies.parts import Engine
from controller.policies.peers import (
    PEERS,
    aibrix,
    dynamo,
    ewma,
    gie,
    predicted,
    prequal,
    sglang,
    shedding,
    simple,
    vllm,
)
from controller.policies.price import SONDE

SCRAPE_S = 0.05  # default, and the shortest interval, of the pickers that scrape
VLLM_S = 0.1  # of vLLM's coordinator

# constants by which the rule takes engines to be what they are not: prompts by half or double, steps by 1.7 or 0.6
WRONG = {"sonde, constants off": (2.0, 0.6), "sonde, constants off the other way": (0.5, 1.7)}
SONDE_ALONE = "sonde, no kernel"
CLASSES = "sonde, classes"
BUDGETS = Budgets(ttft_s=2.0, gap_s=0.05)
SHEDDING = {"llm-d, saturation": shedding.when_saturated, "llm-d, probabilistic": shedding.by_chance}
OURS = ("sonde", *WRONG, SONDE_ALONE, CLASSES)

FACTORIES: dict[str, Callable[..., Policy]] = {
    "peak-ewma": ewma.peak_ewma,
    "prequal": prequal.prequal,
    "vllm-dp": vllm.vllm_dp,
    "llm-d": gie.scorers,
    "dynamo": dynamo.dynamo,
    "sglang": sglang.sglang,
    "aibrix-prefix": aibrix.aibrix,
    "predicted-latency": predicted.predicted,
}
SAME = ("gie-v1",)  # the same rule as llm-d, on the same pages
UNTOLD = (*(name for name in PEERS if name not in SAME), *(f"{name}, tuned" for name in TUNED))
TOLD = ("weights, told", "predicted-latency, told")


def rival(name: str, gpus: Sequence[Gpu]) -> Rival:
    base, _, scrape = name.partition("@")
    made = _rival(base, gpus)
    return replace(made, name=name, scrape_s=float(scrape)) if scrape else replace(made, name=name)


def _rival(name: str, gpus: Sequence[Gpu]) -> Rival:
    if name == CLASSES:
        return replace(_sonde(name, _engine(hardware.H100)), budgets=BUDGETS)
    if name in SHEDDING:
        return replace(_shown("llm-d", PEERS["llm-d"]), sheds=SHEDDING[name])
    if name == SONDE_ALONE:
        return Rival(name, SONDE, prefixes=True)
    if name in WRONG:
        return _sonde(name, _engine(hardware.scaled(hardware.H100, *WRONG[name])))
    if name == "sonde":
        return _sonde(name, _engine(hardware.H100))
    if name == "weights, told":
        return Rival(name, simple.weighted([_weight(gpu) for gpu in gpus]))
    if name == "predicted-latency, told":
        return _shown("predicted-latency", predicted.predicted([_engine(gpu) for gpu in gpus]))
    peer, _, tuned = name.partition(", ")
    policy = FACTORIES[peer](**TUNED[peer]) if tuned else PEERS[peer]
    return _shown(peer, policy)


def with_constants(peer: str, **constants: object) -> Rival:
    """A peer with other constants than its defaults, for tuning."""
    return _shown(peer, FACTORIES[peer](**constants))


def _sonde(name: str, engine: Engine) -> Rival:
    policy = replace(SONDE, new=lambda: Prices(engine))
    return Rival(name, policy, kernel=True, responses=False, prefixes=True, engine=engine)


def _shown(peer: str, policy: Policy) -> Rival:
    """What each original reads. Prequal's servers answer probes with their own count, which is the kernel's."""
    scrapes = {"gie-v0.3": SCRAPE_S, "llm-d": SCRAPE_S, "predicted-latency": SCRAPE_S, "vllm-dp": VLLM_S}
    prefixes = peer in ("llm-d", "lmetric", "dynamo", "sglang", "aibrix-prefix", "predicted-latency")
    return Rival(peer, policy, kernel=peer == "prequal", scrape_s=scrapes.get(peer), prefixes=prefixes)


def _engine(gpu: Gpu) -> Engine:
    return Engine(gpu.step_s, gpu.sequence_s, gpu.kv_token_s, gpu.prefill_token_s)


def _weight(gpu: Gpu) -> float:
    """3:1 for H100 and A100, as an operator would set it by prefill speed."""
    return round(hardware.A100.prefill_token_s / gpu.prefill_token_s, 1)
