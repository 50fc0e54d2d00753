"""Tells of directories that come and go in a tree, by inotify, so that a new pod need not wait for the next look.

Only a hint: what is there is for a scan to find, and scans go on without it where the kernel gives no more watches.
"""

from __future__ import annotations

import ctypes
import logging
import os

log = logging.getLogger(__name__)

_CREATE_DELETE_DIRECTORY = 0x100 | 0x200 | 0x01000000 | 0x04000000  # CREATE, DELETE, ONLYDIR, DONT_FOLLOW
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """One inotify descriptor. Raises OSError where the kernel gives none."""

    def __init__(self) -> None:
        self.descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))
        self._complained = False

    def add(self, directory: str) -> None:
        """Watches one directory; the kernel drops it by itself when the directory goes."""
        if _libc.inotify_add_watch(self.descriptor, os.fsencode(directory), _CREATE_DELETE_DIRECTORY) >= 0:
            return
        errno = ctypes.get_errno()
        if not self._complained and errno != 2:  # ENOENT: gone already
            log.warning("no more inotify watches (%s): new pods are found a second later", os.strerror(errno))
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
