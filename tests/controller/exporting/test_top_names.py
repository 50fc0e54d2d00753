"""Bounded names: who is asked for most keeps a series, whatever clients make up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.exporting.top_names import FADING, NAME_LIMIT, OTHER, TopNames


def labels(names: TopNames, asked: list[str]) -> list[str]:
    return [names.label(name)[0] for name in asked]


def test_the_first_names_are_themselves_and_the_rest_is_other() -> None:
    names = TopNames(2)
    assert labels(names, ["a", "b", "c", "a", "d"]) == ["a", "b", OTHER, "a", OTHER]


def test_made_up_names_keep_no_real_one_out() -> None:
    names = TopNames(10)
    labels(names, [f"made-up-{number}" for number in range(5000)])
    assert labels(names, ["real"] * 20)[-1] == "real"


def test_a_name_asked_for_keeps_its_place_among_made_up_ones() -> None:
    names = TopNames(10)
    for number in range(5000):
        assert names.label("real") == ("real", None)
        names.label(f"made-up-{number}")


def test_who_loses_its_place_is_told_so_that_its_series_go() -> None:
    names = TopNames(1)
    names.label("old")
    assert [names.label("new") for _ in range(4)] == [(OTHER, None)] * 3 + [("new", "old")]


def test_a_name_that_nobody_has_asked_for_lately_gives_way() -> None:
    names = TopNames(2)
    labels(names, ["steady", "past"] + ["past"] * 500)
    labels(names, ["steady"] * 10 * FADING)
    assert labels(names, ["new"] * 8)[-1] == "new"
    assert labels(names, ["steady"]) == ["steady"]


def test_a_long_name_and_the_word_other_are_other() -> None:
    names = TopNames(5)
    assert labels(names, ["x" * (NAME_LIMIT + 1), "x" * 10_000, OTHER]) == [OTHER] * 3
    assert labels(names, ["x" * NAME_LIMIT]) == ["x" * NAME_LIMIT]


@given(st.lists(st.text(max_size=2), max_size=300), st.integers(1, 4))
def test_never_more_names_than_the_limit_have_a_series(asked: list[str], limit: int) -> None:
    names, there = TopNames(limit), set()
    for name in asked:
        label, gone = names.label(name)
        there.discard(gone)
        there |= {label} - {OTHER}
        assert label in (name, OTHER)
        assert len(there) <= limit
