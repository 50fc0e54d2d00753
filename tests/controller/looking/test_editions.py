"""From one document to the next."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from controller.choosing.lastpicks import LastPicks
from controller.endpoints.table import Table
from controller.looking.document import Document, Summary, document
from controller.looking.editions import Edition, first, following
from controller.model import ClusterChanged
from tests.controller.known import cluster, frame, kernel, pod, table

SUMMARY = Summary("default", "p", True, "sonde", 0, 0, 0)


def seen(made: Table, now: float = 0.0) -> Document:
    return document(made, made.ranks(now), LastPicks(), SUMMARY, now)


def read(event: bytes) -> tuple[str, int, dict[str, Any]]:
    name, number, data, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    return name.removeprefix("event: "), int(number.removeprefix("id: ")), msgspec.json.decode(data[len("data: ") :])


def test_who_has_nothing_gets_everything() -> None:
    name, version, data = read(first(7, seen(table(pod("a"), pod("b"))), {}, 2.0).event(0))
    assert (name, version) == ("full", 7)
    assert [one["pod"] for one in data["pods"]] == ["a", "b"]
    assert data["line_step_s"] == 2.0


def test_who_is_one_behind_gets_what_changed() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(1), "b": kernel(1)}), 0.0)
    edition = first(1, seen(made), {}, 2.0)
    made.apply(frame({"b": kernel(3)}), 0.1)
    name, version, data = read(following(edition, seen(made, 0.2), {}).event(1))
    assert (name, version) == ("step", 2)
    assert [(one["pod"], one["in_flight"]) for one in data["pods"]] == [("b", 3)]
    assert "picks" not in data


def test_when_somebody_came_or_went_everybody_gets_everything() -> None:
    made = table(pod("a"), pod("b"))
    edition = first(1, seen(made), {}, 2.0)
    made.apply(ClusterChanged(cluster(pod("a"))), 0.1)
    for step in range(3):
        edition = following(edition, seen(made, step), {})
        assert read(edition.event(1))[0] == "full"
    assert read(edition.event(3))[0] == "step"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5), st.booleans()), max_size=30))
def test_a_viewer_of_any_speed_ends_with_the_state_as_it_is(changes: list[tuple[str, int, bool]]) -> None:
    made = table(*(pod(name) for name in "abcd"))
    edition: Edition = first(1, seen(made), {}, 2.0)
    held = {one["id"]: one for one in read(edition.event(0))[2]["pods"]}
    has = 1
    for at, (name, in_flight, looks) in enumerate(changes):
        made.apply(frame({name: kernel(in_flight, at=at / 10)}), at / 10)
        edition = following(edition, seen(made, at / 10), {})
        if looks or at == len(changes) - 1:
            held |= {one["id"]: one for one in read(edition.event(has))[2]["pods"]}
            has = edition.version
    assert held == {one["id"]: one for one in read(edition.event(0))[2]["pods"]}
