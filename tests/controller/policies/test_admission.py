from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.policies.admission import Budgets, Line, Waiter, admits
from controller.policies.price import Forecast

BUDGETS = Budgets(ttft_s=2.0, gap_s=0.05)


def forecast(wait_s: float = 0.0, gap_s: float = 0.01, in_flight: float = 9.0, measured: bool = True) -> Forecast:
    return Forecast(wait_s + 0.1, wait_s, gap_s, in_flight, measured)


@pytest.mark.parametrize(("wait_s", "gap_s"), [(0.9, 0.01), (0.0, 0.029), (0.0, 0.0)])
def test_within_all_budgets_everybody_goes(wait_s: float, gap_s: float) -> None:
    assert [admits(forecast(wait_s, gap_s), priority, BUDGETS) for priority in (5, 0, -5)] == [True] * 3


@pytest.mark.parametrize(
    ("wait_s", "gap_s", "expected"),
    [
        (1.1, 0.01, [True, True, False]),
        (1.7, 0.01, [True, False, False]),
        (3.1, 0.01, [False, False, False]),
        (0.0, 0.031, [True, True, False]),
        (0.0, 0.037, [True, False, False]),
        (0.0, 0.056, [False, False, False]),
    ],
)
def test_the_less_important_gives_way_first(wait_s: float, gap_s: float, expected: list[bool]) -> None:
    assert [admits(forecast(wait_s, gap_s), priority, BUDGETS) for priority in (1, 0, -1)] == expected


def test_what_it_has_waited_counts_too() -> None:
    assert admits(forecast(0.9), 0, BUDGETS, waited_s=0.6)
    assert not admits(forecast(0.9), 0, BUDGETS, waited_s=0.8)


def test_nothing_is_held_back_on_a_guess_or_from_an_idle_endpoint_or_without_a_wish() -> None:
    late = forecast(99.0, 9.0)
    assert admits(late._replace(measured=False), -1, BUDGETS)
    assert admits(late._replace(in_flight=0.0), -1, BUDGETS)
    assert admits(late, -1, Budgets())
    assert admits(forecast(float("nan"), float("nan")), -1, BUDGETS)


def waiter(name: str, priority: int = 0, flow: str = "", at: float = 0.0, patience: float = 1.0) -> Waiter:
    return Waiter(name, priority, flow, at, at + patience, size_bytes=10)


def order(line: Line, tokens: float = 100.0) -> list[str]:
    """Who goes, one after the other, each charged alike."""
    names = []
    while line.size:
        head = next(line.heads())
        line.leave(head)
        line.served(head.priority, head.flow, tokens)
        names.append(head.what)
    return names


def test_the_important_go_first_and_then_the_earliest_deadline() -> None:
    line = Line()
    for one in (waiter("late", 0, patience=3.0), waiter("soon", 0), waiter("low", -2), waiter("high", 7, patience=9.0)):
        line.join(one)

    assert [head.what for head in line.heads()] == ["high", "soon", "low"]
    assert order(line) == ["high", "soon", "late", "low"]


def test_a_flood_of_one_flow_does_not_starve_another() -> None:
    line = Line()
    for number in range(6):
        line.join(waiter(f"a{number}", flow="a", at=number * 0.001))
    line.join(waiter("b0", flow="b", at=0.5))
    line.join(waiter("b1", flow="b", at=0.6))

    assert order(line)[:4] == ["a0", "b0", "a1", "b1"]


def test_who_was_served_without_waiting_has_had_his_share() -> None:
    line = Line()
    line.served(0, "a", 10_000)
    line.join(waiter("b", flow="b", at=0.5))
    line.join(waiter("a", flow="a"))

    assert order(line) == ["b", "a"]


def test_who_was_away_has_no_claim_from_it() -> None:
    line = Line()
    line.served(0, "a", 1_000)
    for number in range(4):
        line.join(waiter(f"a{number}", flow="a"))
    for number in range(4):
        line.join(waiter(f"new{number}", flow="new", at=0.5))

    assert Counter(name[0] for name in order(line)[:4]) == {"a": 2, "n": 2}


def test_whose_budget_is_spent_goes() -> None:
    line = Line()
    line.join(waiter("a"))
    line.join(waiter("b", patience=5.0))

    assert [one.what for one in line.expired(1.0)] == ["a"]
    assert line.size == 1


def test_a_full_line_loses_the_last_of_the_least_important() -> None:
    line = Line(most=2)
    assert line.join(waiter("low", -1)) == []
    assert line.join(waiter("high", 1)) == []

    assert [one.what for one in line.join(waiter("mid"))] == ["low"]
    assert [one.what for one in line.join(waiter("lower", -1))] == ["lower"]


def test_bodies_do_not_fill_the_memory() -> None:
    line = Line(most_bytes=15)
    line.join(waiter("a"))

    assert [one.what for one in line.join(waiter("b", at=0.1))] == ["b"]
    assert line.size_bytes == 10


@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from("abc"), st.floats(0.0, 9.0), st.booleans())))
def test_everybody_leaves_once_and_nothing_is_left(plan: list[tuple[int, str, float, bool]]) -> None:
    line, gone = Line(most=8), []
    for number, (priority, flow, patience, leaves) in enumerate(plan):
        one = waiter(str(number), priority, flow, patience=patience)
        gone += [victim.what for victim in line.join(one)]
        if leaves and one.what not in gone:
            line.leave(one)
            line.leave(one)
            gone.append(one.what)
    gone += [one.what for one in line.expired(4.5)]
    gone += order(line)

    assert sorted(gone, key=int) == [str(number) for number in range(len(plan))]
    assert (line.size, line.size_bytes, list(line.heads())) == (0, 0, [])
