"""Tables for terminals: columns, what of a table is wanted, the lines it comes to. Pure; refuses to know any terminal.

A row is a mapping of plain values; None is unknown and shown as "?", never as zero. Names come from outside, so nothing
of them but printable text reaches a line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Row = Mapping[str, Any]
CELL_LIMIT = 48
GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """`kind` says how a value is written; texts stand left, numbers right. `help` is for who does not know the head.

    `none` is written where there is no value: unknown, unless it is one that need not be there.
    """

    key: str
    head: str
    kind: str
    help: str
    none: str = "?"


def _count(value: Any) -> str:
    return str(value)


def _time(value: Any) -> str:
    ms = float(value) * 1e3
    if ms >= 10_000:
        return f"{ms / 1e3:.0f}s"
    if ms >= 1000:
        return f"{ms / 1e3:.1f}s"
    return f"{ms:.0f}ms" if ms >= 10 else f"{ms:.1f}ms"


def _number(value: Any) -> str:
    return f"{value:.0f}" if value % 1 == 0 or value >= 100 else f"{value:.3g}"


KINDS: Mapping[str, Callable[[Any], str]] = {
    "text": str,
    "count": _count,
    "time": _time,  # seconds
    "number": _number,
    "share": lambda value: f"{100 * value:.0f}%",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What of a table is wanted, and how it stands on the screen."""

    sort: str
    reverse: bool = False
    find: str = ""
    typing: bool = False  # the keys go to `find`
    paused: bool = False
    help: bool = False
    top: int = 0  # the first row shown, or line of the help
    left: int = 0  # columns left out behind the first, which always stays
    done: bool = False


def clean(text: str) -> str:
    """Without what a terminal would obey, or what would turn the order of letters."""
    return "".join("\ufffd" if _obeyed(unicodedata.category(letter)) else letter for letter in text)


def _obeyed(category: str) -> bool:
    """Controls, formats and the like (C*), and the separators of lines and paragraphs (Zl, Zp)."""
    return category[0] == "C" or category in ("Zl", "Zp")


def width(text: str) -> int:
    """How many places it takes."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def cut(text: str, places: int) -> str:
    """No wider than so many places."""
    if width(text) <= places:
        return text
    while text and width(text) > places - 1:
        text = text[:-1]
    return text + "…" if places > 0 else ""


def aligned(cells: Sequence[Sequence[str]], left: Sequence[bool]) -> list[str]:
    """Rows of texts as lines, each column as wide as its widest; `left` says which columns stand left."""
    widths = [max(width(row[at]) for row in cells) for at in range(len(left))]
    return [
        GAP.join(
            text + " " * (places - width(text)) if at_left else " " * (places - width(text)) + text
            for text, places, at_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in cells
    ]


def cell(column: Column, row: Row) -> str:
    value = row.get(column.key)
    if value is None:
        return column.none
    return cut(clean(KINDS[column.kind](value)), CELL_LIMIT)


def chosen(columns: Sequence[Column], rows: Sequence[Row], look: Look) -> list[Row]:
    """The rows that are wanted, in the wanted order; what is unknown comes last either way."""
    wanted = look.find.lower()
    texts = [column.key for column in columns if column.kind == "text"]
    found = [row for row in rows if any(wanted in str(row.get(key) or "").lower() for key in texts)]
    known = [row for row in found if row.get(look.sort) is not None]
    unknown = [row for row in found if row.get(look.sort) is None]
    return sorted(known, key=lambda row: row[look.sort], reverse=look.reverse) + unknown


def lines(columns: Sequence[Column], rows: Sequence[Row], look: Look) -> list[str]:
    """The head and the wanted rows."""
    shown = [*columns[:1], *columns[1 + look.left :]]
    heads = [column.head + _mark(column, look) for column in shown]
    cells = [heads, *([cell(column, row) for column in shown] for row in chosen(columns, rows, look))]
    return aligned(cells, [column.kind == "text" for column in shown])


def _mark(column: Column, look: Look) -> str:
    return "" if column.key != look.sort else "↓" if look.reverse else "↑"


def helping(columns: Sequence[Column]) -> list[str]:
    """The keys and the heads in words."""
    keys = (
        ("q", "ends"),
        ("s S", "sort by the next, the previous column"),
        ("r", "turns the order round"),
        ("/", "find: rows with this text; Enter ends typing, Esc clears"),
        ("p, space", "pause and go on"),
        ("up, down, PgUp, PgDn, Home, End", "scroll"),
        ("right, left", "more of the columns, where the window is too narrow for all"),
        ("h ?", "this"),
    )
    told = [*keys, ("", ""), *((column.head, column.help) for column in columns), ("?", "not known, never zero")]
    return aligned(told, (True, True))


def press(look: Look, key: str, columns: Sequence[Column], page: int) -> Look:
    """The look after a key. Keys that print are themselves; the others have curses' names, such as KEY_DOWN."""
    if look.typing:
        return _typed(look, key)
    scroll = {"KEY_DOWN": 1, "KEY_UP": -1, "KEY_NPAGE": page, "KEY_PPAGE": -page, "j": 1, "k": -1}
    if key in scroll:
        return replace(look, top=max(0, look.top + scroll[key]))
    if look.help:
        return replace(look, help=False, top=0)
    if key in ("s", "S"):
        keys = [column.key for column in columns]
        return replace(look, sort=keys[(keys.index(look.sort) + (1 if key == "s" else -1)) % len(keys)], top=0)
    if key in ("KEY_RIGHT", "KEY_LEFT"):
        return replace(look, left=min(max(0, look.left + (1 if key == "KEY_RIGHT" else -1)), max(0, len(columns) - 2)))
    turned: Mapping[str, Look] = {
        "q": replace(look, done=True),
        "r": replace(look, reverse=not look.reverse, top=0),
        "/": replace(look, typing=True),
        "\x1b": replace(look, find="", top=0),
        "p": replace(look, paused=not look.paused),
        " ": replace(look, paused=not look.paused),
        "h": replace(look, help=True, top=0),
        "?": replace(look, help=True, top=0),
        "KEY_HOME": replace(look, top=0),
        "KEY_END": replace(look, top=1 << 30),
    }
    return turned.get(key, look)


def _typed(look: Look, key: str) -> Look:
    if key in ("\n", "\r", "KEY_ENTER"):
        return replace(look, typing=False)
    if key == "\x1b":
        return replace(look, typing=False, find="", top=0)
    if key in ("KEY_BACKSPACE", "\x7f", "\b"):
        return replace(look, find=look.find[:-1], top=0)
    if len(key) == 1 and key.isprintable():
        return replace(look, find=look.find + key, top=0)
    return look
