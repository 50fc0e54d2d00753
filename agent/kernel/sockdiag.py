"""Asks the kernel for the TCP sockets of a network namespace: listeners with their queues, and how many are open.

Speaks netlink's sock_diag itself. pyroute2, which the lab uses, does too, but importing it costs an agent 20 MB of
memory and a dump ten times the processor time, for one request and one answer of fixed shape (linux/inet_diag.h).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTEN = 10
# all in which a server's socket may carry a request, or still have to be closed
OPEN_STATES = sum(1 << state for state in (1, 3, 4, 5, 8, 9, 11))

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_CGROUP_ID = 21  # attribute
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI2s46s")
_MESSAGE_BYTES = 72
_RECEIVE_BYTES = 1 << 16
_PATIENCE_S = 2.0
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Listener:
    port: int
    cgroup_id: int
    queued: int  # connections established and not yet accepted
    limit: int


class Namespace:
    """A netlink socket in one network namespace. It keeps the namespace alive: close it when its pods are gone."""

    def __init__(self, path: Path | None = None) -> None:
        """Opens it in the namespace of this file, in the caller's own without one. Raises OSError."""
        with entered(path) if path else contextlib.nullcontext():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._socket.settimeout(_PATIENCE_S)

    def close(self) -> None:
        self._socket.close()

    def listeners(self) -> list[Listener]:
        """Raises OSError."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._dump(family, 1 << LISTEN, 0):
                queued, limit = struct.unpack_from("=II", message, 56)
                found.append(Listener(_port(message), _cgroup_of(message), queued, limit))
        return found

    def open_connections(self, port: int) -> dict[int, int]:
        """How many sockets are open at a local port, by cgroup. Raises OSError."""
        counts: dict[int, int] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._dump(family, OPEN_STATES, port):
                if _port(message) == port:
                    cgroup_id = _cgroup_of(message)
                    counts[cgroup_id] = counts.get(cgroup_id, 0) + 1
        return counts

    def _dump(self, family: int, states: int, port: int) -> Iterator[bytes]:
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states, port.to_bytes(2, "big"), bytes(46))
        header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
        self._socket.send(header + body)
        while True:
            received = self._socket.recv(_RECEIVE_BYTES)
            for kind, message in messages(received):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    raise OSError(-code, os.strerror(-code))
                yield message


def messages(received: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message in what one recv() gave."""
    at = 0
    while at + _HEADER.size <= len(received):
        length, kind, *_ = _HEADER.unpack_from(received, at)
        if length < _HEADER.size:
            return
        yield kind, received[at + _HEADER.size : at + length]
        at += (length + 3) // 4 * 4


def _port(message: bytes) -> int:
    return int.from_bytes(message[4:6], "big")


def _cgroup_of(message: bytes) -> int:
    """0 where the kernel does not say (before 5.9)."""
    at = _MESSAGE_BYTES
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _CGROUP_ID and length == 12:
            return int(struct.unpack_from("=Q", message, at + 4)[0])
        if length < 4:
            break
        at += (length + 3) // 4 * 4
    return 0


@contextlib.contextmanager
def entered(path: Path) -> Iterator[None]:
    """This thread's new sockets belong to the namespace. Raises OSError; entering takes CAP_SYS_ADMIN."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def _setns(descriptor: int) -> None:
    """os.setns came with Python 3.12."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
