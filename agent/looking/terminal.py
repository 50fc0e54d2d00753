"""A table that lives in a terminal, or goes line by line into a pipe; the one place that knows curses.

What is shown comes from a Feed, which a thread of the command's own fills; what of it is wanted is agent.columns'.
Refuses to know what the rows mean.
"""

from __future__ import annotations

import argparse
import contextlib
import curses
import json
import locale
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TextIO

from agent.looking import columns
from agent.looking.columns import Column, Look, Row

FIRST_LIMIT_S = 5.0
KEY_WAIT_MS = 200
STALE_S = 3.0  # a feed brings something each second or so
ESCAPE_MS = 25  # how long an Esc may be the begin of another key
KEYS = "q ends  s sort  r reverse  / find  p pause  h help"


@dataclass(frozen=True, slots=True)
class Options:
    """What every `top` takes."""

    address: str  # host:port
    interval_s: float
    once: bool
    json: bool
    look: Look


@dataclass(frozen=True, slots=True)
class Seen:
    """What a daemon said at one time. `alarms` are the places in `rows` of those that want attention."""

    title: Sequence[str]
    facts: Mapping[str, Any]  # goes before the rows in --json
    rows: Sequence[Row]
    heard_at_s: float
    alarms: frozenset[int] = frozenset()


@dataclass(slots=True)
class Feed:
    """The latest of what a thread hears, and why it hears nothing."""

    seen: Seen | None = None
    problem: str | None = None
    news: threading.Event = field(default_factory=threading.Event)

    def put(self, seen: Seen) -> None:
        self.seen, self.problem = seen, None
        self.news.set()

    def fail(self, problem: str) -> None:
        self.problem = problem
        self.news.set()


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line instead of after a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class NoAnswer(Exception):
    """The daemon cannot be reached, or says nothing; the text says where and what to do."""


def add_flags(parser: argparse.ArgumentParser, address: str, table: Sequence[Column]) -> None:
    add = parser.add_argument
    add("--address", type=_address, default=address, metavar="HOST:PORT", help="of the daemon (default %(default)s)")
    add("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between two tables (default 1)")
    add("--once", action="store_true", help="one table, then end")
    add("--json", action="store_true", help="one JSON object a line instead of a table")
    keys = [column.key for column in table]
    add("--sort", choices=keys, default=keys[0], metavar="COLUMN", help=f"one of {', '.join(keys)}")
    add("--reverse", action="store_true", help="the largest first")
    add("--filter", default="", metavar="TEXT", help="only rows with this text in a name")


def options(flags: argparse.Namespace) -> Options:
    look = Look(flags.sort, flags.reverse, flags.filter)
    return Options(flags.address, flags.interval, flags.once, flags.json, look)


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9090 or [::1]:9090")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0.1 and 3600")
    return seconds


def run(command: str, feed: Feed, follow: Callable[[], None], table: Sequence[Column], wanted: Options) -> int:
    """Shows what `follow`, run in a thread, puts into the feed. Returns the exit status."""
    threading.Thread(target=follow, name="feed", daemon=True).start()
    try:
        first(feed, wanted.address)
        if wanted.once or wanted.json or not _is_terminal():
            _stream(feed, table, wanted, sys.stdout)
        else:
            _live(feed, table, wanted)
    except NoAnswer as fault:
        sys.stderr.write(f"{command}: {fault}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader has what it wanted; what Python still holds for it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def first(feed: Feed, address: str, limit_s: float = FIRST_LIMIT_S) -> Seen:
    """Waits for the first word. Raises NoAnswer."""
    until_s = time.monotonic() + limit_s
    while feed.seen is None:
        if feed.problem is not None:
            raise NoAnswer(feed.problem)
        if not feed.news.wait(max(0.0, until_s - time.monotonic())):
            raise NoAnswer(f"{address} takes the connection, but says nothing for {limit_s:g} s")
    return feed.seen


def _is_terminal() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        curses.setupterm()
    except curses.error:  # TERM names none that is known
        return False
    return bool(curses.tigetstr("cup"))


def _stream(feed: Feed, table: Sequence[Column], wanted: Options, out: TextIO) -> None:
    """Raises NoAnswer when a daemon that was there is not any more."""
    while True:
        seen = feed.seen
        assert seen is not None
        if feed.problem is not None and time.monotonic() - seen.heard_at_s > STALE_S:
            raise NoAnswer(feed.problem)
        out.write(as_json(seen, table, wanted.look) if wanted.json else as_text(seen, table, wanted.look))
        out.flush()
        if wanted.once:
            return
        time.sleep(wanted.interval_s)


def as_json(seen: Seen, table: Sequence[Column], look: Look) -> str:
    rows = [dict(row) for row in columns.chosen(table, seen.rows, look)]
    return json.dumps({**seen.facts, "rows": rows}, ensure_ascii=True) + "\n"


def as_text(seen: Seen, table: Sequence[Column], look: Look) -> str:
    told = [*map(columns.clean, seen.title), *columns.lines(table, seen.rows, look), ""]
    return "\n".join(told) + "\n"


def _live(feed: Feed, table: Sequence[Column], wanted: Options) -> None:
    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", str(ESCAPE_MS))
    with _quiet():
        curses.wrapper(lambda screen: _Live(screen, feed, table, wanted).run())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries that write to standard error, as gRPC does, would write into the table."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _Live:
    """The table on a whole screen, until q."""

    def __init__(self, screen: curses.window, feed: Feed, table: Sequence[Column], wanted: Options) -> None:
        self._screen = screen
        self._feed = feed
        self._table = table
        self._look = wanted.look
        self._seen = feed.seen
        self._interval_s = wanted.interval_s
        self._taken_at_s = 0.0

    def run(self) -> None:
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        if curses.has_colors():
            curses.use_default_colors()
            curses.init_pair(1, curses.COLOR_RED, -1)
        self._screen.timeout(KEY_WAIT_MS)
        while not self._look.done:
            self._take()
            self._draw()
            if (key := self._key()) is not None:
                self._look = columns.press(self._look, key, self._table, self._places())

    def _take(self) -> None:
        """The newest, not more often than was asked for, and not while paused."""
        now = time.monotonic()
        if not self._look.paused and now - self._taken_at_s >= self._interval_s:
            self._seen, self._taken_at_s = self._feed.seen, now

    def _key(self) -> str | None:
        try:
            key = self._screen.get_wch()
        except curses.error:  # none came
            return None
        return key if isinstance(key, str) else curses.keyname(key).decode()

    def _places(self) -> int:
        """Lines for rows: without title, head and foot."""
        assert self._seen is not None
        return max(1, self._screen.getmaxyx()[0] - len(self._seen.title) - 2)

    def _draw(self) -> None:
        assert self._seen is not None
        self._screen.erase()
        if self._look.help:
            self._draw_help(columns.helping(self._table), self._screen.getmaxyx()[0] - 1)
        else:
            self._draw_table(self._seen)
        self._line(self._screen.getmaxyx()[0] - 1, self._foot(self._seen), curses.A_REVERSE)
        self._screen.refresh()

    def _draw_help(self, told: Sequence[str], places: int) -> None:
        top = min(self._look.top, max(0, len(told) - places))
        self._look = replace(self._look, top=top)
        for at, line in enumerate(told[top : top + places]):
            self._line(at, line, 0)

    def _draw_table(self, seen: Seen) -> None:
        for at, line in enumerate(seen.title):
            self._line(at, columns.clean(line), curses.A_BOLD if at == 0 else 0)
        head, *rows = columns.lines(self._table, seen.rows, self._look)
        alarmed = {id(seen.rows[at]) for at in seen.alarms}
        shown = columns.chosen(self._table, seen.rows, self._look)
        places, start = self._places(), len(seen.title)
        top = min(self._look.top, max(0, len(rows) - places))
        self._look = replace(self._look, top=top)
        self._line(start, head, curses.A_UNDERLINE)
        for at, (row, line) in enumerate(list(zip(shown, rows, strict=True))[top : top + places]):
            self._line(start + 1 + at, line, self._alarm() if id(row) in alarmed else 0)

    def _alarm(self) -> int:
        return curses.color_pair(1) | curses.A_BOLD if curses.has_colors() else curses.A_BOLD

    def _foot(self, seen: Seen) -> str:
        look, age_s = self._look, time.monotonic() - seen.heard_at_s
        if look.typing:
            return f"find: {look.find}_"
        if look.help:
            return "up, down scroll  any other key goes back"
        if self._feed.problem is not None and age_s > STALE_S:
            return f"LOST, last heard {age_s:.0f} s ago: {columns.clean(self._feed.problem)}"
        state = "PAUSED  " if look.paused else ""
        found = f"find {look.find!r}  " if look.find else ""
        return f"{state}{found}{KEYS}"

    def _line(self, at: int, text: str, style: int) -> None:
        height, places = self._screen.getmaxyx()
        if at >= height:
            return
        fitting = columns.cut(text, places - 1)  # the last place of the last line cannot be written
        if style & curses.A_REVERSE:
            fitting += " " * (places - 1 - columns.width(fitting))
        with contextlib.suppress(curses.error):  # the window has just become smaller
            self._screen.addstr(at, 0, fitting, style)
