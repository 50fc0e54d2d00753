"""The text format, judged by a reader that others wrote, whatever the labels hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.exporting.exposition import (
    Distribution,
    counter,
    cumulative,
    encoded,
    gauge,
    histogram,
    labels_of,
    number,
    written,
    written_histogram,
)

ODD = ['a"b', "a\\", "a\nb", "\\n", "%s %d %%", "{x}", "é世🦜", "x" * 10_000, "", "a\r\tb", "\x01\x7f", '",le="0.1']


def samples(page: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_a_label_of_any_content_is_read_back_as_it_was(text: str) -> None:
    page = written(gauge("g", "Text.", "a", "b"), [((text, "x"), 1), (("x", text + "y"), 2)])
    assert samples(page) == {("g", text, "x"): 1, ("g", "x", text + "y"): 2}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, unique=True))
def test_labels_never_change_what_the_others_say(texts: list[str]) -> None:
    spread = Distribution([1, 3, 4], 2.5)
    page = written_histogram(histogram("h", "Text.", (0.1, 1), "a"), [((text,), spread) for text in texts])
    found = samples(encoded(page).decode())
    for text in texts:
        values = [found["h_bucket", text, "0.1"], found["h_bucket", text, "1"], found["h_bucket", text, "+Inf"]]
        assert values == [1, 3, 4]
        assert (found["h_sum", text], found["h_count", text]) == (2.5, 4)
    assert len(found) == 5 * len(texts)


def test_what_no_page_can_hold_is_replaced() -> None:
    page = encoded(written(gauge("g", "Text.", "a"), [(("nul\0",), 1), (("half \ud83e",), 2)])).decode()
    assert samples(page) == {("g", "nul\N{REPLACEMENT CHARACTER}"): 1, ("g", "half ?"): 2}


def test_help_and_type_are_there_even_without_samples() -> None:
    page = written(counter("c_total", "One\nline with \\."), [])
    assert page == "# HELP c_total One\\nline with \\\\.\n# TYPE c_total counter\n"


def test_a_histogram_without_labels_is_one() -> None:
    page = written_histogram(histogram("h", "Text.", (0.1, 64.0)), [((), Distribution([1, 1, 2], 70))])
    assert page.splitlines()[2:] == [
        'h_bucket{le="0.1"} 1', 'h_bucket{le="64"} 1', 'h_bucket{le="+Inf"} 2', "h_sum 70", "h_count 2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (True, "1"), (1 << 60, "1152921504606846976"), (0.5, "0.5"), (math.inf, "+Inf"), (-math.inf, "-Inf")],
)
def test_numbers_are_written_in_full(value: float, text: str) -> None:
    assert number(value) == text


def test_not_a_number_is_written_as_prometheus_reads_it() -> None:
    assert number(math.nan) == "NaN"


def test_labels_made_once_say_the_same_as_labels_made_each_time() -> None:
    family, spread = gauge("g", "Text.", "a", "b"), Distribution([1, 2], 0.5)
    made = labels_of(("a",), ('x"%',)).and_one("b", "y\n")
    assert written(family, [(made, 1)]) == written(family, [(('x"%', "y\n"), 1)])
    times = histogram("h", "Text.", (0.1,), "a", "b")
    assert written_histogram(times, [(made, spread)]) == written_histogram(times, [(('x"%', "y\n"), spread)])


def test_counts_become_cumulative() -> None:
    assert cumulative([1, 0, 2]) == [1, 1, 3]
