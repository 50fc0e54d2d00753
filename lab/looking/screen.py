"""Shows lines that change below lines that stay, on a terminal; elsewhere only the lines that stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

PIPE_INTERVAL_S = 4.0  # how often something that changes is worth a line where lines stay


class Screen:
    """A block of lines at the end of the output."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.live = out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._drawn = 0

    def say(self, line: str = "") -> None:
        """A line that stays, below whatever was drawn before."""
        self._drawn = 0
        self._out.write(line + "\n")
        self._out.flush()

    def mute(self) -> None:
        """To be called when the reader has gone: what Python still holds for it goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._out.fileno())
        os.close(nowhere)

    def draw(self, lines: Sequence[str]) -> None:
        """The block as it is now; nothing where lines cannot be taken back."""
        if not self.live:
            return
        columns, rows = shutil.get_terminal_size()
        fitting = [line[: columns - 1] for line in lines[: rows - 1]]  # what has scrolled away cannot be drawn over
        self._out.write(self._up() + "".join(f"\x1b[2K{line}\n" for line in fitting) + "\x1b[J")
        self._out.flush()
        self._drawn = len(fitting)

    def leave(self) -> None:
        """What is drawn stays; the next block goes below."""
        self._drawn = 0

    def erase(self) -> None:
        """Takes the block away."""
        if self._drawn:
            self._out.write(self._up() + "\x1b[J")
            self._out.flush()
            self._drawn = 0

    def _up(self) -> str:
        return f"\x1b[{self._drawn}F" if self._drawn else ""
