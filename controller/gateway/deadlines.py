"""Ends what takes too long: one timer for all that have the same limit, since whoever began first is due first.

A timer for each request would cost more than reading its headers does. Knows tasks, not what they do.
"""

from __future__ import annotations

import asyncio

HELD_S = 1.0  # what is still not over then is cut off all the same


class Deadline:
    """Of one task, in it: `with deadline:` around what must not take longer. `passed` says that it did.

    What is inside sees a cancellation, what is behind does not.
    """

    __slots__ = ("_held", "_hurry", "_late", "_open", "_task", "due_s", "passed")

    def __init__(self, task: asyncio.Task[object], due_s: float, waiting: dict[Deadline, None]) -> None:
        """waiting: where it is kept until it is over."""
        self._task = task
        self._open = waiting
        self._hurry: asyncio.Handle | None = None
        self._held = self._late = False
        self.due_s = due_s
        self.passed = False

    def __enter__(self) -> Deadline:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.lift()
        self.calm()
        # one cancellation is ours; if there are more, somebody else wants the task to end
        return self.passed and self._task.uncancel() == 0 and kind is asyncio.CancelledError

    def lift(self) -> None:
        """From now on it may take as long as it likes."""
        self._open.pop(self, None)

    def hurry(self) -> None:
        """Passes as soon as the task waits, unless calm() is said before."""
        if self._hurry is None and self in self._open:
            self._hurry = asyncio.get_running_loop().call_soon(self.expire)

    def calm(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def hold(self) -> None:
        """What is awaited now is not to be cut off: if the time passes meanwhile, release() ends what comes next."""
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._late:
            self.expire()

    def expire(self) -> None:
        if self._held and not self._late:
            self._late = True
            self._hurry = asyncio.get_running_loop().call_later(HELD_S, self.expire)
        elif not self.passed:
            self.passed = True
            self._task.cancel()


class Deadlines:
    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._open: dict[Deadline, None] = {}  # oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that all tasks are of

    def begin(self) -> Deadline:
        """For the current task, from now on."""
        loop = self._loop = self._loop or asyncio.get_running_loop()  # to ask for it is a system call
        task = asyncio.current_task(loop)
        assert task is not None
        begun = Deadline(task, loop.time() + self._limit_s, self._open)
        self._open[begun] = None
        if self._timer is None:
            self._timer = loop.call_at(begun.due_s, self._look)
        return begun

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for late in [one for one in self._open if one.due_s <= now]:
            del self._open[late]
            late.expire()
        oldest = next(iter(self._open), None)
        self._timer = None if oldest is None else loop.call_at(oldest.due_s, self._look)
