"""Shows lines that change: redrawn in place on a terminal, one line every few seconds into a pipe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

PIPE_INTERVAL_S = 4.0


class Screen:
    """A block of lines at the end of the output."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._drawn = 0
        self._said_at_s: float | None = None

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

    def draw(self, lines: Sequence[str], short: str, now_s: float) -> None:
        """The block as it is now; a pipe gets `short` instead, not too often."""
        if not self._live:
            if self._said_at_s is None or now_s - self._said_at_s >= PIPE_INTERVAL_S:
                self._said_at_s = now_s
                self.say(short)
            return
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._out.write(up + "".join(f"\x1b[2K{line[:width]}\n" for line in lines) + "\x1b[J")
        self._out.flush()
        self._drawn = len(lines)
