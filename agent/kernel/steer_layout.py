"""Reads bpf/steer.h as layout.py reads wire.h, and knows how addresses and ports stand in its structs."""

from __future__ import annotations

import ipaddress
import struct
import sys
from importlib.resources import files

import numpy as np

from agent.kernel.layout import constants, struct_dtype

HEADER = files("bpf").joinpath("steer.h").read_text()
NUMBERS = constants(HEADER)
LAYOUT = NUMBERS["SONDE_STEER_LAYOUT"]
SLOTS = NUMBERS["SONDE_STEER_SLOTS"]
STALE_S = NUMBERS["SONDE_STEER_STALE_MS"] / 1000
KEY = struct_dtype(HEADER, "steer_key")
SERVICE = struct_dtype(HEADER, "steer_service")
SLOT = struct_dtype(HEADER, "steer_slot")
POOL = struct_dtype(HEADER, "steer_pool")
ENDPOINT = struct_dtype(HEADER, "steer_endpoint")
CONTROL = struct_dtype(HEADER, "steer_control")
HEAD = struct_dtype(HEADER, "steer_head")
TABLE = np.dtype([("head", HEAD), ("slots", SLOT, (SLOTS,))])  # struct steer_table of bpf/steer.c

_MAPPED = b"\0" * 10 + b"\xff\xff"


def packed(address: str) -> bytes:
    """An address as 16 bytes in network order, an IPv4 one mapped. Raises ValueError."""
    found = ipaddress.ip_address(address)
    return found.packed if found.version == 6 else _MAPPED + found.packed


def words(address: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """The same as struct members hold it."""
    return np.frombuffer(packed(address), np.uint32)


def text(address: bytes) -> str:
    """The address that packed() made these bytes of."""
    if address.startswith(_MAPPED):
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def port_word(port: int) -> int:
    """A port as it stands in a u32 of a socket's address: its network order in the first two bytes."""
    return int.from_bytes(struct.pack("!H", port), sys.byteorder)


def port_of(word: int) -> int:
    return int(struct.unpack("!H", word.to_bytes(2, sys.byteorder))[0])


def key(address: str, port: int) -> bytes:
    value = np.zeros((), KEY)
    value["address"], value["port"] = words(address), port_word(port)
    return value.tobytes()
