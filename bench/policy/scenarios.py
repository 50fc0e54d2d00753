"""The matrix: pools, loads and what befalls them. Pure values.

Rates are for eight H100 with the lengths of Azure's conversations, whose goodput ends near 138 requests a second; for
four H100 and four A100 it ends near 86.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.policy import rivals
from bench.policy.faults import Absent, AgentDead, AgentLies, AgentStuck, Dark, Far, Fault, Hang, Lossy, Slow
from bench.policy.hardware import A100, H100, L40S, Gpu
from bench.policy.simulation import Plant
from bench.policy.workloads import Load

DURATION_S = 60.0
WARM_S = 15.0  # cut off the beginning
FAULT_S = 20.0

ALIKE = (H100,) * 8
MIXED = (H100,) * 4 + (A100,) * 4
THREE = (H100,) * 3 + (A100,) * 3 + (L40S,) * 2
KNEE = 138.0

# Without shared prefixes these are least-request to the last digit. B1/80 and B3/75 show it; other cells leave them
# out.
BY_PREFIX = ("lmetric", "sglang", "sglang, tuned", "aibrix-prefix", "aibrix-prefix, tuned")
PEERS = tuple(name for name in rivals.UNTOLD if name not in BY_PREFIX)
AFFINE = (*rivals.UNTOLD, "sonde")
WHOLE = (*rivals.UNTOLD, *rivals.TOLD, "sonde", *rivals.WRONG, rivals.SONDE_ALONE)
FULL = (*PEERS, "sonde")
HETERO = (*PEERS, *rivals.TOLD, "sonde", *rivals.WRONG, rivals.SONDE_ALONE)
WHOLE_CELLS = ("B1/80", "B3/75", "B8/groups", "B8/chat-mixed")
ALONE_CELLS = ("B4/x2", "B6/22", "B10/cold", "B11/400ms")  # in which our rule takes part without kernels as well


@dataclass(frozen=True, slots=True)
class Cell:
    """One scenario at one load, and who takes part."""

    key: str
    what: str
    plant: Plant
    load: Load
    rivals: tuple[str, ...] = FULL
    ttft_slo_s: float = 2.0
    tpot_slo_s: float = 0.05


def _pool(gpus: tuple[Gpu, ...] = ALIKE, *faults: Fault, **more: object) -> Plant:
    return Plant(gpus, faults, **more)  # type: ignore[arg-type]


def _homogeneous() -> list[Cell]:
    return [
        Cell(f"B1/{share}", f"eight H100, {share} % of the knee", _pool(), Load(KNEE * share / 100), HETERO)
        for share in (30, 60, 80, 95)
    ]


def _scraping() -> list[Cell]:
    periods = ("0.01", "0.05", "0.2", "1", "5", "30")
    names = tuple(f"{name}@{period}" for name in ("llm-d", "vllm-dp") for period in periods)
    return [Cell("B2", "pages scraped each 10 ms to 30 s", _pool(), Load(100.0), (*names, "least-request", "sonde"))]


def _heterogeneous() -> list[Cell]:
    cells = [
        Cell(f"B3/{rate}", f"four H100, four A100, {rate}/s", _pool(MIXED), Load(float(rate)), HETERO)
        for rate in (55, 65, 75, 82, 88)
    ]
    return [*cells, Cell("B3/L40S", "three H100, three A100, two L40S, 60/s", _pool(THREE), Load(60.0), HETERO)]


def _stragglers() -> list[Cell]:
    cases = {
        "cap": ("one pod's prompts 1.3 times as long", Slow((0,), FAULT_S, 1.3, 1.0)),
        "x2": ("one pod twice as slow", Slow((0,), FAULT_S, 2.0, 2.0)),
        "x4": ("one pod four times as slow", Slow((0,), FAULT_S, 4.0, 4.0)),
        "x2-ends": ("one pod twice as slow for 15 s", Slow((0,), FAULT_S, 2.0, 2.0, FAULT_S + 15)),
    }
    return [Cell(f"B4/{key}", what, _pool(ALIKE, fault), Load(95.0)) for key, (what, fault) in cases.items()]


def _hangs() -> list[Cell]:
    hang = Hang((0,), FAULT_S, FAULT_S + 25)
    return [Cell("B5", "one engine hangs for 25 s, its page stands still", _pool(ALIKE, hang), Load(90.0))]


def _bypass() -> list[Cell]:
    return [
        Cell(
            f"B6/{share}",
            f"{share} % more traffic straight to two pods",
            _pool(),
            Load(80.0, bypass_rate=rate, bypass_pods=2),
        )
        for share, rate in ((5, 4.0), (22, 18.0), (30, 24.0))
    ]


def _pickers() -> list[Cell]:
    return [
        Cell(f"B7/{count}", f"{count} pickers, variation 2", _pool(pickers=count), Load(97.0, 2.0))
        for count in (1, 4, 16)
    ]


def _prefixes() -> list[Cell]:
    cached = _pool(caching=True)
    return [
        Cell("B8/groups", "150 shared prompts of 6,000 tokens, 11/s", cached, Load(11.0, kind="groups"), AFFINE),
        Cell("B8/groups-full", "the same, 14/s: over the knee", cached, Load(14.0, kind="groups"), AFFINE),
        Cell("B8/chat", "conversations, 45/s", cached, Load(45.0, kind="chat"), AFFINE),
        Cell(
            "B8/chat-mixed",
            "conversations on four H100, four A100, 30/s",
            _pool(MIXED, caching=True),
            Load(30.0, kind="chat"),
            HETERO,
        ),
        Cell("B8/long", "Mooncake's lengths up to 16k, 12/s", _pool(), Load(12.0, lengths="mooncake")),
    ]


def _bursts() -> list[Cell]:
    return [Cell(f"B9/{cv}", f"variation {cv}", _pool(), Load(90.0, cv)) for cv in (2.0, 3.5, 13.0)]


def _cold() -> list[Cell]:
    restart = tuple(Absent((pod,), FAULT_S + 4.0 * pod + 3.0, FAULT_S + 4.0 * pod, cold_s=8.0) for pod in range(8))
    return [
        Cell("B10/cold", "a cold pod joins", _pool(ALIKE, Absent((0,), FAULT_S)), Load(90.0)),
        Cell("B10/restart", "pods restart one after the other", _pool(ALIKE, *restart), Load(80.0)),
        Cell("B10/scale", "four pods, then eight", _pool(ALIKE, Absent((4, 5, 6, 7), FAULT_S)), Load(60.0)),
    ]


def _networks() -> list[Cell]:
    cases: dict[str, tuple[str, Fault]] = {
        "50ms": ("+50 ms each way to one pod", Far((0,), FAULT_S, 0.05)),
        "400ms": ("+400 ms each way to one pod", Far((0,), FAULT_S, 0.4)),
        "loss1": ("1 % of packets of one pod lost", Lossy((0,), FAULT_S, 0.01)),
        "loss5": ("5 % of packets of one pod lost", Lossy((0,), FAULT_S, 0.05)),
        "dark": ("one pod cannot be reached", Dark((0,), FAULT_S)),
    }
    return [Cell(f"B11/{key}", what, _pool(ALIKE, fault), Load(90.0)) for key, (what, fault) in cases.items()]


def _adapters() -> list[Cell]:
    plant = _pool(adapter_load_s=0.6)  # the rule begins with a guess of 0.25
    return [Cell("B12", "20 adapters, Zipf, four loaded at once", plant, Load(60.0, adapters=20))]


def _overload() -> list[Cell]:
    names = ("least-request", "llm-d", *rivals.SHEDDING, "sonde", rivals.CLASSES)
    classes = ((1, 0.2), (0, 0.6), (-1, 0.2))
    return [
        Cell(
            f"B13/{times}",
            f"{times} times the knee; 20 % critical, 20 % sheddable",
            _pool(),
            Load(KNEE * times, classes=classes),
            names,
        )
        for times in (1.1, 1.3, 1.6)
    ]


def _stress() -> list[Cell]:
    mixed = _pool(MIXED, pickers=4)
    load = Load(60.0, 1.5, bypass_rate=6.0, bypass_pods=2)
    return [Cell("B14", "four H100, four A100, 4 pickers, bypass, variation 1.5", mixed, load, HETERO)]


def _liars() -> list[Cell]:
    ours = ("least-request", "sonde", rivals.SONDE_ALONE)
    cases: dict[str, tuple[str, Plant]] = {
        "dead": ("agents die", _pool(ALIKE, AgentDead(FAULT_S))),
        "idle": ("agents say all pods are idle", _pool(ALIKE, AgentLies(FAULT_S, 0.0, 0.0))),
        "busy": ("agents say each pod has 500 requests", _pool(ALIKE, AgentLies(FAULT_S, 500.0, 400.0))),
        "chance": ("agents say anything up to 500", _pool(ALIKE, AgentLies(FAULT_S, 500.0, 400.0, by_chance=True))),
        "stuck": ("agents' counts stand still", _pool(ALIKE, AgentStuck(FAULT_S))),
        "stale": ("counts come once a second", _pool(kernel_period_s=1.0)),
    }
    return [Cell(f"B15/{key}", what, plant, Load(100.0), ours) for key, (what, plant) in cases.items()]


def matrix() -> list[Cell]:
    parts = (
        _homogeneous, _scraping, _heterogeneous, _stragglers, _hangs, _bypass, _pickers, _prefixes, _bursts, _cold,
        _networks, _adapters, _overload, _stress, _liars,
    )  # fmt: skip
    cells = [cell for part in parts for cell in part()]
    return [replace(cell, rivals=_taking_part(cell)) for cell in cells]


def _taking_part(cell: Cell) -> tuple[str, ...]:
    if cell.key in WHOLE_CELLS:
        return WHOLE
    return (*cell.rivals, rivals.SONDE_ALONE) if cell.key in ALONE_CELLS else cell.rivals
