"""The lab's live table, on a terminal and into a pipe."""

from __future__ import annotations

import io

import pytest

from lab.contests.load import Progress
from lab.looking.panel import Panel
from lab.looking.screen import PIPE_INTERVAL_S, Screen

PODS = ("pod-1", "pod-2")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    return Terminal()


def panel(out: io.StringIO) -> Panel:
    return Panel(Screen(out), PODS, {"pod-2": "2.5x slow"}, steps=4)


def test_the_first_thing_on_a_terminal_is_the_table_with_what_is_being_done(terminal: Terminal) -> None:
    panel(terminal).begin("preparing", 10.0, short=True)
    first, head, one, two = terminal.getvalue().splitlines()[:4]
    assert "[--------------------] 1/4 preparing: 0.0 s" in first
    assert head.split()[:4] == ["\x1b[2Kpod", "requests", "in", "flight"]
    assert one.split()[:3] == ["\x1b[2Kpod-1", "0", "?"]
    assert two.endswith("2.5x slow")


def test_it_is_drawn_in_place_and_lines_go_above_it(terminal: Terminal) -> None:
    made = panel(terminal)
    made.begin("preparing", 10.0)
    made.draw(12.5)
    assert "\x1b[4F\x1b[2K[--------------------] 1/4 preparing: 2.5 s" in terminal.getvalue()
    terminal.truncate(0)
    made.say(["a line that stays"])
    assert terminal.getvalue().lstrip("\0") == "\x1b[4F\x1b[Ja line that stays\n"


def test_a_load_fills_its_part_of_the_bar(terminal: Terminal) -> None:
    made, progress = panel(terminal), Progress(100)
    for what in ("a", "b"):
        made.begin(what, 0.0)
    progress.sent, progress.ended = 60, 50
    made.begin("Sonde", 1.0, progress)
    assert "[############--------] 3/4 Sonde: 60/100 sent, 50 answered, 0 failed" in terminal.getvalue()


def test_after_the_end_nothing_is_drawn(terminal: Terminal) -> None:
    made = panel(terminal)
    made.begin("preparing", 0.0)
    made.end()
    terminal.truncate(0)
    made.draw(1.0)
    assert terminal.getvalue().strip("\0") == ""


def test_a_pipe_gets_the_steps_and_of_a_long_one_a_line_now_and_then() -> None:
    out = io.StringIO()
    made = panel(out)
    made.begin("preparing", 0.0, short=True)
    made.begin("loading", 0.0)
    for tenth in range(int(PIPE_INTERVAL_S * 25)):
        made.draw(tenth / 10)
    assert out.getvalue().splitlines() == ["... loading", "    loading: 4.0 s", "    loading: 8.0 s"]


def test_a_pipe_hears_of_a_load_at_once_and_then_now_and_then() -> None:
    out, progress = io.StringIO(), Progress(10)
    made = panel(out)
    made.begin("Sonde", 100.0, progress)
    made.draw(101.0)
    progress.sent = 5
    made.draw(100.0 + PIPE_INTERVAL_S)
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == ["Sonde: 0/10 sent", "Sonde: 5/10 sent"]
    assert "pod-1 0 sent, ? in flight" in out.getvalue()
