"""The live page's viewers: a new edition twice a second while there are any, handed over to the threads they wait in.

Owns how many may look and when; refuses to know what they see and how it is carried. Nothing is queued for a viewer:
it waits for an edition newer than the one it has, so a slow one holds up its own thread alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

from controller.looking import document, editions
from controller.looking.document import Document, Lines
from controller.looking.editions import Edition

log = logging.getLogger(__name__)

TICK_S = 0.5
LINE_EVERY = 2  # ticks between two points of a line: a minute is shown
VIEWER_LIMIT = 32
RETRY_MS = 1000


class Board:
    """The latest edition, for any thread."""

    def __init__(self, limit: int = VIEWER_LIMIT) -> None:
        self._limit = limit
        self._news = threading.Condition()
        self._edition: Edition | None = None
        self._closed = False
        self.viewers = 0

    def join(self) -> bool:
        """Takes a place, to be given back by leave(); False if all are taken."""
        with self._news:
            if self.viewers >= self._limit or self._closed:
                return False
            self.viewers += 1
            return True

    def leave(self) -> None:
        with self._news:
            self.viewers -= 1

    def show(self, edition: Edition | None) -> None:
        with self._news:
            self._edition = edition
            self._news.notify_all()

    def close(self) -> None:
        """Ends every viewer's events."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def events(self) -> Iterator[bytes]:
        """Server-sent events for one viewer that has joined, until close(); each call of next() may wait."""
        yield b"retry: %d\n\n" % RETRY_MS
        seen = 0
        while (edition := self._after(seen)) is not None:
            yield edition.event(seen)
            seen = edition.version

    def _after(self, seen: int) -> Edition | None:
        with self._news:
            self._news.wait_for(lambda: self._closed or (self._edition is not None and self._edition.version > seen))
            return None if self._closed else self._edition


class Live:
    """Makes the editions, on the event loop that owns the table."""

    def __init__(self, take: Callable[[], Document], board: Board) -> None:
        self._take = take
        self._board = board
        self._lines: Lines = {}
        self._edition: Edition | None = None
        self._version = 0

    async def run(self) -> None:
        """Makes editions for ever; after a fault of its own it makes no more, and the picks go on."""
        ticks = 0
        while True:
            try:
                self._tick(ticks % LINE_EVERY == 0)
            except Exception:  # whatever it is, the picks of this process must go on
                log.exception("the live page cannot be made and is off from now on")
                self._board.close()
                return
            ticks += 1
            await asyncio.sleep(TICK_S)

    def _tick(self, point: bool) -> None:
        """Lines go on while nobody looks, so that who comes sees what was."""
        watched = self._board.viewers > 0
        if not watched:
            self._show(None)
        if not watched and not point:
            return
        now = self._take()
        if point:
            self._lines = document.longer(self._lines, now.pods)
        if watched:
            self._version += 1
            before = self._edition
            self._show(
                editions.following(before, now, self._lines)
                if before
                else editions.first(self._version, now, self._lines, TICK_S * LINE_EVERY)
            )

    def _show(self, edition: Edition | None) -> None:
        if edition is not self._edition:
            self._edition = edition
            self._board.show(edition)
