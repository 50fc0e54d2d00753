"""The last picks, as the picker notes them."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from controller.choosing.lastpicks import KEPT, SPACING_S
from controller.choosing.picker import Picker
from controller.model import Reason, Request
from tests.controller.known import frame, kernel, pod, table

ANY = Request("/v1/completions", "m", None)


def names(rows) -> list[str]:
    return [row.endpoint.pod for row, _ in rows]


def test_a_pick_is_noted_with_the_ranks_it_was_made_by() -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    made.apply(frame({"a": kernel(20), "b": kernel(0), "c": kernel(50)}, full=True), 0.0)
    picker = Picker(made, rng=Random(1))
    picker.pick(ANY, 0.0)
    made.apply(frame({"a": kernel(9), "b": kernel(9)}), 0.1)
    (noted,) = picker.last.latest()
    assert (noted.row.endpoint.pod, noted.reason) == ("b", Reason.CHEAPEST)
    assert names(noted.alternatives()) == ["a", "c"]
    assert noted.rank < noted.alternatives()[0][1] < noted.alternatives()[1][1]


def test_of_a_subset_only_what_was_allowed_is_an_alternative() -> None:
    made = table(pod("a"), pod("b"), pod("c"))
    made.apply(frame({"a": kernel(0), "b": kernel(3), "c": kernel(5)}, full=True), 0.0)
    picker = Picker(made, rng=Random(1))
    picker.pick(Request("/", None, ("10.0.0.2:8000", "10.0.0.3:8000")), 0.0)
    (noted,) = picker.last.latest()
    assert noted.row.endpoint.pod == "b"
    assert names(noted.alternatives()) == ["c"]


def test_under_load_some_are_noted_the_latest_first_and_not_more_than_fit() -> None:
    made = table(pod("a"), pod("b"))
    picker = Picker(made, rng=Random(1))
    picks = 40 * KEPT
    for number in range(picks):
        picker.pick(ANY, number * SPACING_S / 10)
    times = [noted.at_s for noted in picker.last.latest()]
    assert len(times) == KEPT
    assert times == sorted(times, reverse=True)
    assert all(a - b >= 0.99 * SPACING_S for a, b in pairwise(times))
