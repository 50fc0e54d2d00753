"""A TCP client of our own behind a TUN device: which segment goes when, twice or never, is what a test says.

The kernel's own loopback cannot lose a segment: what a program drops there, its sender keeps and sends in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import itertools
import os
import select
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyroute2 import IPRoute

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
TUNSETIFF = 0x400454CA
TUN_WITHOUT_INFO = 0x1001
LIMIT_S = 20.0
_ports = itertools.count(20_000)


@dataclass(frozen=True, slots=True)
class Link:
    """A device with a local address, and beyond it nobody but us."""

    descriptor: int
    server: str
    client: str


@contextlib.contextmanager
def link() -> Iterator[Link]:
    """Raises OSError where the machine has no TUN devices."""
    net = ipaddress.IPv4Address("198.18.0.0") + 4 * (os.getpid() % 16_000)  # set aside for tests of networks (RFC 2544)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        wanted = struct.pack("16sH22x", b"sondetest%d", TUN_WITHOUT_INFO)
        name = fcntl.ioctl(descriptor, TUNSETIFF, wanted)[:16].rstrip(b"\0").decode()
        with IPRoute() as routes:
            (index,) = routes.link_lookup(ifname=name)
            routes.addr("add", index=index, address=str(net + 1), prefixlen=30)
            routes.link("set", index=index, state="up")
        yield Link(descriptor, str(net + 1), str(net + 2))
    finally:
        os.close(descriptor)  # which removes the device


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


@dataclass(slots=True)
class Client:
    """One connection. Offsets count the bytes that the client has to say, from its first."""

    link: Link
    port: int
    own_port: int = field(default_factory=lambda: next(_ports))
    first: int = 1_000_000  # sequence number of the first byte
    theirs: int = 0  # sequence number of the server's next byte
    received: bytes = b""
    said: int = 0  # how far the client came
    ended: bool = False  # by the server

    def open(self, data: bytes = b"", offset: int = 0, on_syn: bytes = b"") -> Client:
        """With what the third ACK carries, and what the SYN, which is for a server that does TCP Fast Open."""
        self._send(SYN, self.first - 1, on_syn)
        while not self.theirs:
            self.take()
        self.segment(data, offset)
        return self

    def segment(self, data: bytes, offset: int = 0) -> Client:
        self.said = max(self.said, offset + len(data))
        self._send(ACK | PSH if data else ACK, self.first + offset, data)
        return self

    def finish(self) -> None:
        """Closes, and waits for the server to."""
        self._send(ACK | FIN, self.first + self.said)
        self.said += 1
        while not self.ended:
            self.take()

    def read_until(self, ending: bytes) -> bytes:
        while not self.received.endswith(ending):
            assert not self.ended, f"the server ended the connection after {self.received!r}"
            self.take()
        found, self.received = self.received, b""
        return found

    def _send(self, flags: int, seq: int, data: bytes = b"") -> None:
        ack = self.theirs if flags & ACK else 0
        head = struct.pack("!HHIIBBHHH", self.own_port, self.port, seq & 0xFFFFFFFF, ack, 5 << 4, flags, 65535, 0, 0)
        source, target = (ipaddress.IPv4Address(text).packed for text in (self.link.client, self.link.server))
        length = len(head) + len(data)
        total = checksum(source + target + struct.pack("!HH", 6, length) + head + data)
        head = head[:16] + struct.pack("!H", total) + head[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 6, 0, source, target)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        os.write(self.link.descriptor, ip + head + data)

    def take(self) -> None:
        """The next packet for this connection; what is new of it is acknowledged."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            ready, _, _ = select.select([self.link.descriptor], [], [], deadline - time.monotonic())
            assert ready, f"nothing more came; so far {self.received!r}"
            packet = os.read(self.link.descriptor, 1 << 16)
            if packet[0] >> 4 == 4 and packet[9] == 6 and packet[22:24] == struct.pack("!H", self.own_port):
                break
        seq, flags = int.from_bytes(packet[24:28], "big"), packet[33]
        data = packet[20 + (packet[32] >> 4) * 4 :]
        if flags & SYN:
            self.theirs = seq + 1 & 0xFFFFFFFF
            return
        self.ended |= bool(flags & (FIN | RST))
        if seq == self.theirs and (data or flags & FIN):
            self.theirs = seq + len(data) + (flags & FIN) & 0xFFFFFFFF
            self.received += data
            self.segment(b"", self.said)
