from __future__ import annotations

from random import Random

import pytest

from controller.choosing.picker import Picker
from controller.endpoints.table import MISSED_S
from controller.model import Request, parts_of
from tests.controller.known import frame, kernel, pod, table

ASK = Request("/v1/completions", "m", None)


def test_fallbacks_are_the_next_best_that_are_ready() -> None:
    known = table(pod("a"), pod("b"), pod("c"), pod("d", ready=False))
    known.apply(frame({"a": kernel(2), "b": kernel(0), "c": kernel(1), "d": kernel(0)}), 0.0)
    pick = Picker(known, rng=Random(1), max_endpoints=4).pick(ASK, 0.0)

    assert pick is not None
    assert pick.destination == "10.0.0.2:8000,10.0.0.3:8000,10.0.0.1:8000"


def test_fallbacks_stay_in_the_subset() -> None:
    known = table(pod("a"), pod("b"), pod("c"))
    request = Request("/", None, ("10.0.0.1:8000", "10.0.0.3:8000"))
    pick = Picker(known, rng=Random(1), max_endpoints=3).pick(request, 0.0)

    assert pick is not None
    assert set(pick.destination.split(",")) == set(request.subset or ())


@pytest.mark.parametrize("state", [{"ready": False}, {"terminating": True}])
def test_what_is_not_ready_is_never_picked(state: dict[str, bool]) -> None:
    known = table(pod("a", **state), pod("b", **state))

    assert Picker(known, rng=Random(1)).pick(ASK, 0.0) is None
    assert all(row.ledger.own == 0 for row in known.rows)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.1:8000", ("10.0.0.1", 8000)),
        ("10.0.0.1", ("10.0.0.1", None)),
        ("[fd00::1]:8000", ("fd00::1", 8000)),
        ("[FD00:0::1]:8000", ("fd00::1", 8000)),
        ("[fd00::1]", ("fd00::1", None)),
        ("fd00::1", ("fd00::1", None)),
        ("::1", ("::1", None)),
        ("[::ffff:10.0.0.1]:8000", ("10.0.0.1", 8000)),
        ("name:80", ("name:80", None)),
        ("10.0.0.1:http", ("10.0.0.1:http", None)),
        ("", ("", None)),
    ],
)
def test_the_parts_of_an_address(text: str, parts: tuple[str, int | None]) -> None:
    assert parts_of(text) == parts


@pytest.mark.parametrize(
    ("entry", "count"), [("[FD00:0::1]:8000", 1), ("fd00::1", 2), ("[fd00::1]:9", 0), ("fd00::1:8000", 0)]
)
def test_a_subset_is_matched_on_address_and_port(entry: str, count: int) -> None:
    known = table(pod("a", ip="fd00::1"), pod("b"), ports=(8000, 8001))

    assert len(known.indexes((entry,))) == count


def test_an_endpoint_that_did_not_serve_comes_last_for_a_while() -> None:
    known = table(pod("a"), pod("b"))
    picker = Picker(known, rng=Random(1))
    pick = picker.pick(ASK, 0.0)
    assert pick is not None
    missed, other = pick.row, next(row for row in known.rows if row is not pick.row)
    pick.served_by(other.endpoint.address, 1.0)

    assert (missed.misses, missed.ledger.own, missed.ledger.unshown) == (1, 0, 0)
    assert other.ledger.own == 1
    later = picker.pick(ASK, 1.1)
    assert later is not None
    assert later.row is other  # which has more to do
    later.end(1.2)
    pick.end(1.2)
    assert [row.ledger.own for row in known.rows] == [0, 0]
    known.refresh(1.0 + MISSED_S)
    assert missed.penalty == 0


def test_an_endpoint_that_served_is_not_counted_again_where_its_kernel_shows_it() -> None:
    known = table(pod("a"), pod("b"))
    known.apply(frame({"a": kernel(0), "b": kernel(1)}), 0.0)
    pick = Picker(known, rng=Random(1)).pick(ASK, 0.0)
    assert pick is not None
    pick.served_by("10.0.0.2:8000", 0.1)
    pick.end(0.2)

    assert [row.ledger.unshown for row in known.rows] == [0, 0]


def test_an_endpoint_that_served_is_known_in_any_spelling() -> None:
    known = table(pod("a", "fd00::1"))
    pick = Picker(known, rng=Random(1)).pick(ASK, 0.0)
    assert pick is not None
    pick.served_by("[FD00:0::1]:8000", 0.1)

    assert (known.rows[0].misses, known.rows[0].ledger.own) == (0, 1)


@pytest.mark.parametrize("served", ["10.0.0.1:8000", "elsewhere"])
def test_whoever_served_the_reservation_ends_once(served: str) -> None:
    known = table(pod("a"))
    pick = Picker(known, rng=Random(1)).pick(ASK, 0.0)
    assert pick is not None
    pick.served_by(served, 0.1)
    pick.end(0.2)

    assert known.rows[0].ledger.own == known.rows[0].ledger.unshown == 0
