from __future__ import annotations

import pytest

from controller.policies.adapters import EVICTION_SHARE, LASTS, LOAD_S, Adapters

NOW_S = 100.0


def placed(*names: str, room: int = 2) -> Adapters:
    made = Adapters()
    made.place(names)
    for name in names:
        made.set_room(name, room)
    return made


def test_an_adapter_costs_its_load_where_it_was_never_used() -> None:
    adapters = placed("a", "b")
    assert adapters.use("a", "x", NOW_S)

    assert adapters.wait_s("x", NOW_S).tolist() == [0.0, LOAD_S]
    assert not adapters.use("a", "x", NOW_S)


def test_where_there_is_no_room_the_one_that_must_go_counts_too() -> None:
    adapters = placed("a", room=1)
    adapters.use("a", "x", NOW_S)

    assert adapters.wait_s("y", NOW_S).tolist() == [LOAD_S * (1 + EVICTION_SHARE)]


def test_the_one_whose_requests_are_over_first_goes() -> None:
    adapters = placed("a")
    for at_s, adapter in enumerate(("x", "y", "x", "z")):
        adapters.use("a", adapter, NOW_S + at_s, 1.0)

    assert adapters.wait_s("x", NOW_S).tolist() == [0.0]
    assert adapters.wait_s("y", NOW_S)[0] > 0


def test_where_all_places_have_requests_one_more_waits_until_the_first_has_none() -> None:
    adapters = placed("a", "b")
    adapters.use("a", "x", NOW_S, 3.0)
    adapters.use("a", "y", NOW_S, 1.0)
    adapters.use("b", "x", NOW_S, 9.0)

    load_s = LOAD_S * (1 + EVICTION_SHARE)
    assert adapters.wait_s("z", NOW_S).tolist() == [LASTS * 1.0 + load_s, LOAD_S]
    assert adapters.wait_s("z", NOW_S + 100 * LASTS).tolist() == [load_s, LOAD_S]


@pytest.mark.parametrize(("later_s", "loads_at_once"), [(0.0, False), (100 * LASTS, True)])
def test_a_load_is_timed_only_where_nothing_has_to_end_before(later_s: float, loads_at_once: bool) -> None:
    adapters = placed("a", room=1)
    assert adapters.use("a", "x", NOW_S, 1.0)
    assert not adapters.use("a", "x", NOW_S, 1.0)

    assert adapters.use("a", "y", NOW_S + later_s, 1.0) is loads_at_once


def test_another_pod_holds_nothing() -> None:
    adapters = placed("a", "b")
    adapters.use("a", "x", NOW_S)
    adapters.use("b", "x", NOW_S)
    adapters.forget("a")
    adapters.place(["b", "a"])

    assert adapters.wait_s("x", NOW_S).tolist() == [0.0, LOAD_S]
    assert not adapters.use("gone", "x", NOW_S)


@pytest.mark.parametrize("absurd", [float("nan"), float("inf"), -1.0, 1e9])
def test_the_time_of_a_load_is_learned_from_what_makes_sense(absurd: float) -> None:
    adapters = placed("a")
    for _ in range(40):
        adapters.learn(1.5)
    adapters.learn(absurd)

    assert adapters.load_s == pytest.approx(1.5, rel=0.01)
