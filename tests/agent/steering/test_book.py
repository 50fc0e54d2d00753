"""What stands in the maps follows what is wanted; places and counts outlive an agent."""

from __future__ import annotations

import pytest

from agent.steering.book import Book, Full, Wanted
from agent.steering.maps import Frontend
from agent.steering.services import Target
from tests.agent.steering.maps import MemoryMaps

LLM, OTHER = ("ns", "llm"), ("ns", "other")
FRONT, SIX = Frontend("10.96.0.10", 80), Frontend("fd00::a", 80)
A, B, C = (Target(f"10.0.0.{n}", 8000, name) for n, name in enumerate("abc", 1))


def wanted(pool: tuple[str, str] = LLM, **weights: float) -> Wanted:
    return Wanted(pool, {{"a": A, "b": B, "c": C}[name]: weight for name, weight in weights.items()})


def test_a_table_is_put_when_it_is_another_and_not_again() -> None:
    maps = MemoryMaps()
    book = Book(maps)
    book.settle({FRONT: wanted(a=3.0, b=1.0)}, 1.0)
    book.settle({FRONT: wanted(a=3.0, b=1.0)}, 2.0)
    assert (maps.puts, book.changes) == (1, 1)
    assert maps.shares(FRONT) == pytest.approx({0: 0.75, 1: 0.25})
    book.settle({FRONT: wanted(b=1.0)}, 3.0)
    assert maps.shares(FRONT) == {1: 1.0}
    book.settle({}, 4.0)
    assert (maps.services(), maps.tables) == ({}, {})


def test_another_agent_goes_on_where_the_last_one_was() -> None:
    maps = MemoryMaps()
    Book(maps).settle({FRONT: wanted(a=1.0), SIX: wanted(OTHER, b=1.0)}, 1.0)
    maps.pools["steered"] = 5
    maps.endpoints["connections"] = 7
    entries = maps.services()
    second = Book(maps)
    second.settle({FRONT: wanted(b=1.0, a=1.0)}, 2.0)
    assert maps.services() == {FRONT: entries[FRONT]}
    assert (second.endpoint_index(A[:2]), second.endpoint_index(B[:2])) == (0, 1)
    assert maps.endpoints["connections"][0] == 7
    assert maps.pools["steered"][entries[FRONT].pool] == 5


def test_shares_come_to_what_was_picked_by_each_table() -> None:
    maps = MemoryMaps()
    book = Book(maps)
    book.settle({FRONT: wanted(a=3.0, b=1.0)}, 1.0)
    maps.counts[0] = 100
    book.settle({FRONT: wanted(b=1.0)}, 2.0)
    maps.counts[0] = 10
    assert book.intended_now() == pytest.approx({0: 75.0, 1: 35.0})
    book.settle({}, 3.0)
    assert book.intended_now() == pytest.approx({0: 75.0, 1: 35.0})


def test_places_are_taken_again_only_when_all_are_and_never_from_who_has_one() -> None:
    maps = MemoryMaps(endpoints=2)
    book = Book(maps)
    book.settle({FRONT: wanted(a=1.0)}, 1.0)
    book.settle({FRONT: wanted(b=1.0)}, 2.0)
    maps.endpoints["connections"] = 9
    book.settle({FRONT: wanted(b=1.0, c=1.0)}, 3.0)
    assert (book.endpoint_index(A[:2]), book.endpoint_index(C[:2])) == (None, 0)
    assert maps.endpoints["connections"].tolist() == [0, 9]
    with pytest.raises(Full, match="2 endpoints are steered already"):
        book.settle({FRONT: wanted(a=1.0, b=1.0, c=1.0)}, 4.0)


def test_pools_that_are_gone_leave_their_place_to_others_when_all_are_taken() -> None:
    maps = MemoryMaps(pools=1)
    book = Book(maps)
    book.settle({FRONT: wanted(a=1.0)}, 1.0)
    with pytest.raises(Full, match="1 pools are steered already"):
        book.settle({FRONT: wanted(a=1.0), SIX: wanted(OTHER, b=1.0)}, 2.0)
    maps.pools["steered"] = 5
    book.settle({SIX: wanted(OTHER, b=1.0)}, 3.0)
    assert maps.pools["steered"].tolist() == [0]


def test_clients_are_left_alone_until_they_are_not_any_more() -> None:
    maps = MemoryMaps()
    book = Book(maps)
    book.skip({11: 1, 12: 2})
    book.skip({12: 1})
    assert maps.skips() == {12: 1}
    assert Book(maps).left_alone == 1
