"""Tables for terminals, as values."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.looking import columns
from agent.looking.columns import Column, Look

TABLE = (
    Column("pod", "pod", "text", "its name"),
    Column("load", "load", "count", "requests"),
    Column("ttft_s", "TTFT", "time", "first token"),
)
ROWS = [
    {"pod": "b", "load": 2, "ttft_s": 0.0123},
    {"pod": "a", "load": None, "ttft_s": None},
    {"pod": "long-name", "load": 10, "ttft_s": 12.4},
]


def names(look: Look) -> list[str]:
    return [row["pod"] for row in columns.chosen(TABLE, ROWS, look)]


def test_texts_stand_left_numbers_right_and_unknown_is_a_question_mark() -> None:
    assert columns.lines(TABLE, ROWS, Look("pod")) == [
        "pod↑       load  TTFT",
        "a             ?     ?",
        "b             2  12ms",
        "long-name    10   12s",
    ]


def test_what_need_not_be_there_leaves_its_place_empty() -> None:
    column = Column("stale_s", "stale", "time", "age", none="")
    assert columns.cell(column, {"stale_s": None}) == ""
    assert columns.cell(column, {"stale_s": 2.0}) == "2.0s"


def test_what_is_unknown_comes_last_whichever_way_it_is_sorted() -> None:
    assert names(Look("load")) == ["b", "long-name", "a"]
    assert names(Look("load", reverse=True)) == ["long-name", "b", "a"]


def test_find_takes_any_text_in_any_case() -> None:
    assert names(Look("pod", find="LONG")) == ["long-name"]
    assert names(Look("pod", find="nothing")) == []


def test_without_rows_there_is_a_head() -> None:
    assert columns.lines(TABLE, [], Look("load")) == ["pod  load↑  TTFT"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0004, "0.4ms"), (0.0123, "12ms"), (0.9996, "1000ms"), (1.25, "1.2s"), (75.4, "75s")]
)
def test_times_have_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert columns.KINDS["time"](seconds) == text


@given(st.text(max_size=60))
def test_no_line_holds_what_a_terminal_would_obey(name: str) -> None:
    line = columns.lines(TABLE[:1], [{"pod": name}], Look("pod"))[1]
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in line)
    assert columns.width(line) <= columns.CELL_LIMIT


def test_wide_letters_take_two_places() -> None:
    rows = [{"pod": "模型", "load": 1}, {"pod": "abcd", "load": 1}]
    assert columns.lines(TABLE[:2], rows, Look("load"))[1:] == ["模型      1", "abcd      1"]
    assert columns.cut("模型模型", 5) == "模型…"


def pressed(look: Look, *keys: str) -> Look:
    for key in keys:
        look = columns.press(look, key, TABLE, 10)
    return look


def test_keys_change_the_look() -> None:
    start = Look("pod")
    assert pressed(start, "s").sort == "load"
    assert pressed(start, "S").sort == "ttft_s"
    assert pressed(start, "s", "s", "s") == start
    assert pressed(start, "r").reverse
    assert pressed(start, "p").paused
    assert pressed(start, " ", "p") == start
    assert pressed(start, "KEY_NPAGE", "KEY_UP").top == 9
    assert pressed(start, "KEY_UP").top == 0
    assert pressed(start, "h").help
    assert pressed(start, "?", "q") == start  # any key leaves the help
    assert pressed(start, "q").done
    assert pressed(start, "KEY_F(5)") == start


def test_columns_move_out_to_the_left_but_for_the_first() -> None:
    look = pressed(Look("pod"), "KEY_RIGHT")
    assert [line.split() for line in columns.lines(TABLE, ROWS[:1], look)] == [["pod↑", "TTFT"], ["b", "12ms"]]
    assert pressed(look, *["KEY_RIGHT"] * 9).left == 1
    assert pressed(look, "KEY_LEFT", "KEY_LEFT").left == 0


def test_the_help_scrolls_and_ends_with_any_other_key() -> None:
    look = pressed(Look("pod", top=7), "h")
    assert (look.help, look.top) == (True, 0)
    look = pressed(look, "KEY_DOWN", "KEY_NPAGE")
    assert (look.help, look.top) == (True, 11)
    assert pressed(look, "x") == Look("pod")


def test_while_typing_keys_are_letters() -> None:
    typing = pressed(Look("pod"), "/", "q", "s", "x", "KEY_BACKSPACE")
    assert (typing.find, typing.typing, typing.done, typing.sort) == ("qs", True, False, "pod")
    assert pressed(typing, "\n").typing is False
    assert pressed(typing, "\x1b") == Look("pod")
    assert pressed(typing, "\n", "\x1b").find == ""


def test_the_help_explains_every_column() -> None:
    text = "\n".join(columns.helping(TABLE))
    assert all(column.help in text for column in TABLE)
