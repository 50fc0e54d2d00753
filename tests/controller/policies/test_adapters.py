from __future__ import annotations

import pytest

from controller.policies.adapters import EVICTION_SHARE, LOAD_S, Adapters


def placed(*names: str, room: int = 2) -> Adapters:
    made = Adapters()
    made.place(names)
    for name in names:
        made.set_room(name, room)
    return made


def test_an_adapter_costs_its_load_where_it_was_never_used() -> None:
    adapters = placed("a", "b")
    assert adapters.use("a", "x")

    assert adapters.wait_s("x").tolist() == [0.0, LOAD_S]
    assert not adapters.use("a", "x")


def test_where_there_is_no_room_the_one_that_must_go_counts_too() -> None:
    adapters = placed("a", room=1)
    adapters.use("a", "x")

    assert adapters.wait_s("y").tolist() == [LOAD_S * (1 + EVICTION_SHARE)]


def test_the_least_recently_used_goes() -> None:
    adapters = placed("a")
    for adapter in ("x", "y", "x", "z"):
        adapters.use("a", adapter)

    assert adapters.wait_s("x").tolist() == [0.0]
    assert adapters.wait_s("y")[0] > 0


def test_another_pod_holds_nothing() -> None:
    adapters = placed("a", "b")
    adapters.use("a", "x")
    adapters.use("b", "x")
    adapters.forget("a")
    adapters.place(["b", "a"])

    assert adapters.wait_s("x").tolist() == [0.0, LOAD_S]
    assert not adapters.use("gone", "x")


@pytest.mark.parametrize("absurd", [float("nan"), float("inf"), -1.0, 1e9])
def test_the_time_of_a_load_is_learned_from_what_makes_sense(absurd: float) -> None:
    adapters = placed("a")
    for _ in range(40):
        adapters.learn(1.5)
    adapters.learn(absurd)

    assert adapters.load_s == pytest.approx(1.5, rel=0.01)
