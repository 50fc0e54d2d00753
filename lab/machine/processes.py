"""Child processes of the lab: started with their output in files, watched, and ended whatever happens.

Knows nothing of what they are. A child gets SIGKILL from the kernel when the lab itself is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

GRACE_S = 3.0
LAST_LINES = 8


class ProcessError(Exception):
    """A process of the lab did not start, or ended on its own; the text has its last lines."""


class Process:
    """One running child."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, output: Path) -> None:
        self.name = name
        self.output = output
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.returncode is None

    def failure(self, what: str) -> ProcessError:
        lines = self.output.read_text(errors="replace").splitlines()[-LAST_LINES:]
        said = "".join(f"\n    {line}" for line in lines) or " without a word"
        return ProcessError(f"{self.name} {what}; the end of {self.output}:{said}")

    async def ended(self) -> None:
        """Waits for the end, which nobody wanted. Raises ProcessError."""
        status = await self._child.wait()
        raise self.failure(f"ended with status {status}")

    async def finished(self) -> int:
        """Waits for the end, which is wanted; the status."""
        return await self._child.wait()

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, and SIGKILL for what does not end in time."""
        if not self.running:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._child.wait()
                    return


async def start(name: str, command: Sequence[str], logs: Path) -> Process:
    """Starts a command in a session of its own, so that the terminal's Ctrl-C reaches the lab only."""
    output = logs / f"{name}.log"
    setpriv = shutil.which("setpriv")
    guarded = [setpriv, "--pdeathsig", "KILL", *command] if setpriv else list(command)
    with output.open("ab") as sink:
        child = await asyncio.create_subprocess_exec(
            *guarded, stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    return Process(name, child, output)


async def finish(name: str, command: Sequence[str], logs: Path, limit_s: float) -> str:
    """Runs a command to its end and returns what it printed. Raises ProcessError if it fails or takes too long."""
    process = await start(name, command, logs)
    try:
        async with asyncio.timeout(limit_s):
            status = await process._child.wait()
    except TimeoutError:
        raise process.failure(f"did not end within {limit_s:g} s") from None
    finally:
        await process.stop()
    if status:
        raise process.failure(f"failed with status {status}")
    return process.output.read_text(errors="replace")


async def listening(process: Process, host: str, port: int, limit_s: float) -> None:
    """Waits until an address takes connections. Raises ProcessError if the process ends first or it takes too long."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + limit_s
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        if not process.running:
            raise process.failure("ended before it listened")
        if loop.time() > deadline_s:
            raise process.failure(f"does not listen on {host}:{port} after {limit_s:g} s")
        await asyncio.sleep(0.03)
