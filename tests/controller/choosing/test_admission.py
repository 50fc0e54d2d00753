"""Who gets 429, by policy, priority and what is known of the pool."""

from __future__ import annotations

from random import Random

import pytest

from agent.cluster.objects import Objective, cluster_of
from controller.catalog.classes import CRITICAL, SHED, SHEDDABLE, STANDARD
from controller.choosing.admission import Gate, gate_of, policy_of
from controller.choosing.saturation import limits
from controller.endpoints.row import ENGINE_LIMIT_S
from controller.endpoints.table import Table
from controller.model import ClusterChanged, EngineScraped, EngineSignal, Request, Resolved
from controller.policies.fleet import Job
from controller.policies.registry import POLICIES
from tests.controller.known import cluster, frame, kernel, pod, table
from tests.controller.policies.fleets import fleet

A, B = "10.0.0.1:8000", "10.0.0.2:8000"


def page(waiting: int, kv: float = 0.1, at: float = 0.0, running: int = 8) -> EngineSignal:
    return EngineSignal(at, "vllm", running, waiting, kv)


def pool(**pages: EngineSignal) -> Table:
    held = table(*(pod(name) for name in "ab"))
    for name, signal in pages.items():
        held.apply(EngineScraped({"a": A, "b": B}[name], signal), signal.true_at_s)
    return held


def asks(priority: int, subset: tuple[str, ...] | None = None) -> Request:
    return Request("/v1/completions", "m", subset, resolved=Resolved("m", "m", None, priority, ""))


def shed(policy: str, held: Table, now: float = 0.1) -> list[int]:
    """Which of the classes are shed."""
    gate: Gate = gate_of(policy, limits(policy, {}))
    return [p for p in (SHEDDABLE, STANDARD, CRITICAL) if gate(asks(p), held, now) is SHED]


FULL, FREE = page(9), page(2)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("gie-v0.3", [SHEDDABLE, STANDARD]),  # standard is as sheddable there
        ("gie-v1", [SHEDDABLE]),
        ("sonde", [SHEDDABLE]),
        ("round-robin", []),
    ],
)
def test_a_pool_without_room_sheds_what_its_policy_lets_go(policy: str, expected: list[int]) -> None:
    assert shed(policy, pool(a=FULL, b=FULL)) == expected


@pytest.mark.parametrize("policy", ["gie-v0.3", "gie-v1", "sonde"])
def test_nobody_is_shed_while_there_is_room_or_nothing_is_known(policy: str) -> None:
    assert shed(policy, pool(a=FULL, b=FREE)) == []
    assert shed(policy, pool(a=FULL)) == []
    assert shed(policy, pool()) == []
    assert shed(policy, table()) == []


@pytest.mark.parametrize(
    ("policy", "until_s"), [("gie-v0.3", ENGINE_LIMIT_S), ("gie-v1", 0.2), ("sonde", ENGINE_LIMIT_S)]
)
def test_numbers_that_are_too_old_shed_nobody(policy: str, until_s: float) -> None:
    held = pool(a=FULL, b=FULL)
    assert SHEDDABLE in shed(policy, held, until_s - 0.01)
    assert shed(policy, held, until_s + 0.01) == []


@pytest.mark.parametrize("policy", ["gie-v0.3", "gie-v1", "sonde"])
def test_a_full_cache_is_no_room_either(policy: str) -> None:
    assert SHEDDABLE in shed(policy, pool(a=page(0, 0.99), b=page(0, 0.97)))
    assert shed(policy, pool(a=page(0, 0.99), b=page(0, 0.5))) == []


def test_an_endpoint_that_is_not_ready_is_no_room() -> None:
    held = pool(a=FULL, b=FREE)
    held.apply(ClusterChanged(cluster(pod("a"), pod("b", ready=False))), 0.05)
    assert SHEDDABLE in shed("sonde", held)


def test_the_endpoints_that_the_gateway_allows_are_the_ones_that_count() -> None:
    held, gate = pool(a=FULL, b=FREE), gate_of("sonde", limits("sonde", {}))
    assert gate(asks(SHEDDABLE, (A,)), held, 0.1) is SHED
    assert gate(asks(SHEDDABLE, (B,)), held, 0.1) is None
    assert gate(asks(SHEDDABLE), held, 0.1) is None


def test_the_kernel_shows_relief_before_the_next_page_does() -> None:
    held = pool(a=FULL, b=FULL)
    gate = gate_of("sonde", limits("sonde", {}))
    held.apply(frame({"a": kernel(17), "b": kernel(17)}, full=True), 0.1)
    assert gate(asks(SHEDDABLE), held, 0.1) is SHED
    held.apply(frame({"a": kernel(4, at=0.2), "b": kernel(17, at=0.2)}), 0.2)
    assert gate(asks(SHEDDABLE), held, 0.2) is None


def test_as_pressure_grows_the_lowest_priorities_go_first() -> None:
    gate = gate_of("sonde", limits("sonde", {}))
    gone = []
    for waiting in (4, 5, 7, 12, 25):
        held = pool(a=page(waiting), b=page(waiting))
        some = [Objective("default", f"o{n}", "p", n, "") for n in (-9, -1)]
        known = cluster(pod("a"), pod("b"))
        held.apply(ClusterChanged(cluster_of([*known.pools.values(), *known.pods.values(), *some])), 0.05)
        now = 0.1 + waiting  # the pressure is looked at anew
        for row in held.rows:
            row.engine = page(waiting, at=now)
        gone.append([p for p in (-9, -1, 0, 1) if gate(asks(p), held, now)])
    assert gone == [[], [-9], [-9, -1], [-9, -1], [-9, -1, 0]]


def test_what_is_shed_is_told_when_to_come_back_and_why() -> None:
    assert (SHED.status, dict(SHED.headers)) == (
        429, {"x-llm-d-request-dropped-reason": "rejected-saturated", "retry-after": "1"},
    )  # fmt: skip


def test_the_thresholds_of_the_tree_are_those_of_its_environment() -> None:
    seen = fleet(3, queued=[5, 6, 0], kv_usage=[0.8, 0.0, 0.81])
    known = limits("gie-v0.3", {"QUEUE_THRESHOLD_CRITICAL": "6", "KV_CACHE_THRESHOLD": "0.5"})
    assert policy_of("gie-v0.3", known).choose(seen, Job(1000.0), Random(1), None) == 1
    assert policy_of("llm-d", known) is POLICIES["llm-d"]
