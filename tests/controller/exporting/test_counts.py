"""What the request path counts."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from controller.exporting.counts import DURATION_BOUNDS_S, NOBODY, Counts, Declined, Rewritten, Series
from controller.model import Resolved
from tests.controller.known import asked


def test_a_requests_life_is_counted_under_what_it_asked_for() -> None:
    counts = Counts()
    series = counts.picked(asked("llama", "llama-8b", 3), 2e-5, size_bytes=100)
    assert series == Series("llama", "llama-8b", "3")
    assert counts.view().tallies[series].running == 1
    counts.ended(series, 1.3)
    tally = counts.view().tallies[series]
    assert (tally.requests, tally.running, tally.sizes_bytes.sum) == (1, 0, 100)
    assert tally.durations_s.counts[bisect_left(DURATION_BOUNDS_S, 1.3)] == 1


def test_a_request_whose_end_nobody_tells_took_no_known_time() -> None:
    counts = Counts()
    series = counts.picked(asked("m"), 1e-5)
    counts.ended(series, None)
    tally = counts.view().tallies[series]
    assert sum(tally.durations_s.counts) == 0
    assert tally.unfollowed


def test_a_request_refused_before_its_pick_is_a_request_too() -> None:
    counts = Counts()
    counts.refused(400)
    assert counts.view().tallies[NOBODY].requests == 1
    assert counts.view().tallies[NOBODY].errors == {"400": 1}


def test_a_request_refused_at_its_pick_is_counted_once() -> None:
    counts = Counts()
    series = counts.picked(asked("m"), 1e-5)
    counts.refused(503, series)
    assert counts.view().tallies[series].requests == 1
    assert counts.view().tallies[series].errors == {"503": 1}


def test_the_series_of_a_model_that_lost_its_place_go_and_its_requests_may_end_later() -> None:
    counts = Counts(model_limit=1)
    old = counts.picked(asked("old"), 1e-5)
    for _ in range(4):
        new = counts.picked(asked("new"), 1e-5)
    assert new == Series("new", "new")
    assert old not in counts.view().tallies
    counts.ended(old, 1.0)
    counts.failed(500, old)
    assert old not in counts.view().tallies
    assert counts.view().tallies[Series("other", "other")].requests == 3


def test_targets_and_priorities_are_bounded_too() -> None:
    counts = Counts()
    for number in range(3000):
        counts.picked(asked("m", f"t{number}", number), 1e-5)
        counts.declined("saturated", f"o{number}", number)
    view = counts.view()
    assert len(view.tallies) < 600
    assert len(view.declined) < 600
    assert sum(tally.requests for tally in view.tallies.values()) == 3000


def test_priorities_of_other_models_are_bounded() -> None:
    counts = Counts(model_limit=1)
    counts.picked(asked("m"), 1e-5)
    for number in range(3000):
        counts.picked(asked(f"made-up-{number}", None, number), 1e-5)
    assert len(counts.view().tallies) < 600


def test_declined_requests_are_counted_by_reason_and_class() -> None:
    counts = Counts()
    counts.declined("saturated", "batch", -1)
    counts.declined("saturated", "batch", -1)
    counts.declined("late", None, 0)
    assert counts.view().declined == {Declined("saturated", "batch", "-1"): 2, Declined("late", "", "0"): 1}


def test_a_view_does_not_change_any_more() -> None:
    counts = Counts()
    series = counts.picked(asked("m"), 1e-5)
    view = counts.view()
    counts.ended(series, 1.0)
    counts.refused(503, series)
    assert view.tallies[series].running == 1
    assert not view.tallies[series].errors
    assert sum(view.tallies[series].durations_s.counts) == 0


def test_rewrites_are_counted_by_object_and_names_and_bounded() -> None:
    counts = Counts()
    for number in range(2000):
        made = Resolved(f"m{number}", "t", None, 0, "", rewritten_by="r")
        counts.picked(replace(asked("m"), resolved=made), 1e-5)
    rewritten = counts.view().rewritten
    assert rewritten[Rewritten("r", "m0", "t")] == 1
    assert sum(rewritten.values()) == 2000
    assert len(rewritten) < 600


def test_a_target_that_is_nobodys_name_has_no_series_of_its_own() -> None:
    counts = Counts()
    assert counts.picked(asked("m", "x" * 100_000), 1e-5) == Series("m", "other")
