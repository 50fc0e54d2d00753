"""Forms of the values that flags take, each with one line on what is wrong with any other."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return read


def name(text: str) -> str:
    # it becomes part of paths, cgroup names and namespaces
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not made of a letter and up to 30 of a-z, 0-9 and '-'")
    return text


def some_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    names = tuple(known)

    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(text.split(",")))
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"got {unknown[0]!r}, expected some of {','.join(names)}")
        return chosen

    return read


def which_part(text: str) -> tuple[int, int]:
    """ "1/3": the first of three."""
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not such as 1/3, the first of three")
    return int(found[1]), int(found[2])
