from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.endpoints.reservations import ARRIVAL_S, DETACHED_LIMIT_S, SHOWN_LIMIT_S, Ledger


def test_a_reservation_counts_until_it_is_dropped() -> None:
    ledger = Ledger()
    made = ledger.reserve(0.0)
    assert (ledger.unshown, ledger.own) == (1, 1)

    ledger.drop(made)

    assert (ledger.unshown, ledger.own) == (0, 0)


def test_the_kernel_shows_the_oldest_first() -> None:
    ledger = Ledger()
    first, second = ledger.reserve(0.0), ledger.reserve(0.1)

    ledger.show(1, until_s=1.0)

    assert (first.shown, second.shown, ledger.unshown, ledger.own) == (True, False, 1, 2)


def test_a_reading_older_than_a_reservation_does_not_show_it() -> None:
    ledger = Ledger()
    ledger.reserve(1.0)

    ledger.show(5, until_s=0.9)

    assert ledger.unshown == 1


def test_a_request_that_ended_before_it_was_shown_takes_its_own_start() -> None:
    ledger = Ledger()
    quick = ledger.reserve(0.0)
    ledger.reserve(0.1)
    ledger.end(quick)

    ledger.show(1, until_s=1.0)

    assert ledger.unshown == 1


def test_a_request_that_was_never_sent_takes_no_start() -> None:
    ledger = Ledger()
    unsent = ledger.reserve(0.0)
    ledger.reserve(0.1)
    ledger.drop(unsent)

    ledger.show(1, until_s=1.0)

    assert ledger.unshown == 0


def test_what_the_kernel_never_shows_expires() -> None:
    ledger = Ledger()
    ledger.reserve(0.0)
    assert ledger.due_s() == SHOWN_LIMIT_S

    ledger.expire(SHOWN_LIMIT_S)

    assert ledger.unshown == 0
    assert ledger.own == 1


def test_a_detached_request_is_forgotten_after_its_limit_and_an_open_one_is_not() -> None:
    ledger = Ledger()
    ledger.detach(ledger.reserve(0.0), 0.1)
    ledger.reserve(0.0)

    ledger.expire(DETACHED_LIMIT_S)

    assert ledger.own == 1
    assert ledger.due_s() == float("inf")


def test_a_stream_that_outlived_the_limit_leaves_nothing_when_it_is_detached() -> None:
    ledger = Ledger()
    made = ledger.reserve(0.0)
    ledger.expire(DETACHED_LIMIT_S)

    ledger.detach(made, DETACHED_LIMIT_S + 1)

    assert ledger.own == 0


def test_a_page_knows_of_no_pick_that_was_just_on_its_way() -> None:
    ledger = Ledger()
    ledger.reserve(1.0)
    ledger.reserve(2.0)
    ledger.drop(ledger.reserve(2.0))

    assert ledger.since(2.0) == 1
    assert ledger.since(2.0 + 2 * ARRIVAL_S) == 0


def test_giving_back_twice_counts_once() -> None:
    ledger = Ledger()
    made = ledger.reserve(0.0)
    ledger.end(made)
    ledger.drop(made)
    ledger.detach(made, 0.1)

    assert (ledger.unshown, ledger.own) == (0, 0)


steps = st.lists(
    st.tuples(st.sampled_from(["reserve", "drop", "end", "detach", "show", "expire"]), st.integers(0, 5)), max_size=60
)


@given(steps)
def test_counts_are_never_negative_and_nothing_is_left_behind(plan: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    made = []
    now = 0.0
    for action, number in plan:
        now += number * 0.3
        if action == "reserve":
            made.append(ledger.reserve(now))
        elif action == "show":
            ledger.show(number, now)
        elif action == "expire":
            ledger.expire(now)
        elif made:
            at = () if action != "detach" else (now,)
            getattr(ledger, action)(made[number % len(made)], *at)
        assert 0 <= ledger.unshown <= len(made)
        assert 0 <= ledger.open <= ledger.own <= len(made)
    for one in made:
        ledger.detach(one, now)
    ledger.expire(now + DETACHED_LIMIT_S)

    assert (ledger.unshown, ledger.own, ledger.since(0.0)) == (0, 0, 0)
