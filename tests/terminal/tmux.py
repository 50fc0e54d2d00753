"""A terminal as people have it: one tmux server of our own with one pane that runs a command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable

from tests.conftest import skip_or_fail

LIMIT_S = 40
# a size in the environment would count for more than the window's
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "TMUX")}
_NUMBERS = itertools.count()
ENDED = "the command ended with"


class Tmux:
    def __init__(self, name: str) -> None:
        self._name = name

    async def do(self, *command: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *("tmux", "-L", self._name, "-f", "/dev/null", *command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=ENVIRONMENT,
        )
        said, _ = await child.communicate()
        assert child.returncode == 0, said
        return said.decode()

    async def screen(self) -> str:
        return await self.do("capture-pane", "-p")

    async def keys(self, *keys: str) -> None:
        await self.do("send-keys", *keys)

    async def until(self, holds: str | Callable[[str], bool]) -> str:
        """Waits until the screen has a text, or is as it should be; returns it."""
        screen = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while True:
                    screen = await self.screen()
                    if holds in screen if isinstance(holds, str) else holds(screen):
                        return screen
                    await asyncio.sleep(0.05)
        raise AssertionError(f"the screen never had {holds!r}; it is\n{screen}")


@contextlib.asynccontextmanager
async def running(*command: str, columns: int = 160, lines: int = 24) -> AsyncIterator[Tmux]:
    """`command` in a pane, with this Python; ends the server and all in it."""
    if shutil.which("tmux") is None:
        skip_or_fail("terminal", "there is no tmux: run '.ci/setup dev', or install the package tmux")
    tmux = Tmux(f"sonde-test-{os.getpid()}-{next(_NUMBERS)}")
    whole = f"{shlex.join([sys.executable, '-m', *command])}; echo {ENDED} $?; cat"
    await tmux.do("new-session", "-d", "-x", str(columns), "-y", str(lines), whole)
    try:
        yield tmux
    finally:
        await tmux.do("kill-server")
