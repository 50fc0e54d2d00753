"""The lab's folder on disk: manifests, logs and the list of its processes. One lab of a name at a time.

What a killed lab left behind is ended and removed when the next one takes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class HomeError(Exception):
    """The folder cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Home:
    """`manifests` is what both daemons read, `logs` holds everybody's output and the engines' own logs."""

    folder: Path

    @property
    def manifests(self) -> Path:
        return self.folder / "manifests"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def truth(self, pod: str) -> Path:
        """The log a pod's engine keeps of its own requests."""
        return self.logs / f"{pod}.jsonl"

    def note(self, pid: int) -> None:
        """Writes a process down, so that it is found if this lab is killed."""
        with (self.folder / "processes").open("a") as out:
            out.write(f"{pid} {_start_time(pid)}\n")


@contextlib.contextmanager
def taken(lab: str) -> Iterator[tuple[Home, int]]:
    """The lab's folder, empty, and how many processes of a killed lab were ended; all is removed at the end.

    Raises HomeError if a lab of this name runs.
    """
    place = Path(tempfile.gettempdir()) / f"{lab}-{os.geteuid()}"
    with _locked(place.with_suffix(".lock")):
        ended = _clear(place)
        home = Home(place)
        place.mkdir(mode=0o700)
        try:
            home.manifests.mkdir()
            home.logs.mkdir()
            yield home, ended
        finally:
            _clear(place)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        # O_NOFOLLOW: the folder above is open to everybody
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HomeError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or os.stat(path).st_ino != os.fstat(lock).st_ino:
            raise HomeError(f"another lab has just ended and removed {path}: run again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        raise HomeError(f"a lab of this name runs already ({path} is held): end it, or give this one --name") from None
    finally:
        os.close(lock)


def _clear(place: Path) -> int:
    ended = 0
    if os.path.lexists(place) and os.lstat(place).st_uid != os.geteuid():
        raise HomeError(f"{place} belongs to another user: remove it, or give the lab another --name")
    with contextlib.suppress(FileNotFoundError):
        for line in (place / "processes").read_text().splitlines():
            pid, start_time = line.split()
            if _start_time(int(pid)) == start_time:  # the same process, not a later one with its number
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
                    ended += 1
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)
    return ended


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rsplit(")", 1)[1].split()[19]
