"""Tells of what changes in directories, by inotify, so that it need not wait for the next look.

Only a hint: what is there is for a look to find, and looks go on without it where the kernel gives no more watches.
"""

from __future__ import annotations

import ctypes
import logging
import os

log = logging.getLogger(__name__)

_COME_OR_GONE = 0x100 | 0x200  # CREATE, DELETE: all there is to tell of cgroups
# ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO: a file is whole when who writes it closes it
_WRITTEN = 0x004 | 0x008 | 0x040 | 0x080
_DIRECTORY = 0x01000000  # ONLYDIR
_NO_LINK = 0x02000000  # DONT_FOLLOW
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """One inotify descriptor. Raises OSError where the kernel gives none.

    With `files` it tells also of files that were written, and follows a link to a directory.
    """

    def __init__(self, files: bool = False) -> None:
        self._events = _COME_OR_GONE | _DIRECTORY | (_WRITTEN if files else _NO_LINK)
        self.descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))
        self._complained = False

    def add(self, directory: str) -> None:
        """Watches one directory, once however often it is added; the kernel drops it when the directory goes."""
        if _libc.inotify_add_watch(self.descriptor, os.fsencode(directory), self._events) >= 0:
            return
        errno = ctypes.get_errno()
        if not self._complained and errno != 2:  # ENOENT: gone already
            log.warning("no more inotify watches (%s): changes are found a second later", os.strerror(errno))
            self._complained = True

    def drain(self) -> bool:
        """Takes what was told; whether it was anything."""
        told = False
        try:
            while os.read(self.descriptor, 1 << 16):
                told = True
        except BlockingIOError:
            pass
        return told

    def close(self) -> None:
        os.close(self.descriptor)
