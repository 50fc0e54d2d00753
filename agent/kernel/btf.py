"""Finds a type of the running kernel by name in its BTF, which is all that attaching to a raw tracepoint needs.

Knows the format of linux/btf.h as far as to step over what it does not want. Types are numbered from 1 in file order.
"""

from __future__ import annotations

import struct
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
TYPEDEF = 8

_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
_TYPE_BYTES = 12
# bytes behind a type of each kind: so many always, and so many for each of its members
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def type_id(raw: bytes, name: str, kind: int) -> int | None:
    """The number of the type with this name and kind, None where there is none or this is no BTF."""
    if len(raw) < _HEADER.size:
        return None
    magic, _, _, header_bytes, types_at, types_bytes, strings_at, strings_bytes = _HEADER.unpack_from(raw)
    strings = raw[header_bytes + strings_at : header_bytes + strings_at + strings_bytes]
    wanted = strings.find(b"\0" + name.encode() + b"\0") + 1
    if magic != _MAGIC or not wanted:
        return None
    types = memoryview(raw)[header_bytes + types_at : header_bytes + types_at + types_bytes]
    at, number, read = 0, 0, struct.Struct("<II").unpack_from
    while at + _TYPE_BYTES <= len(types):
        number += 1
        name_at, info = read(types, at)
        found = info >> 24 & 0x1F
        if name_at == wanted and found == kind:
            return number
        at += _TYPE_BYTES + _FIXED.get(found, 0) + _EACH.get(found, 0) * (info & 0xFFFF)
    return None


def tracepoint(name: str, path: Path = VMLINUX) -> int:
    """The type that programs attach to for a tracepoint. Raises OSError where the kernel has no BTF or not this one."""
    number = type_id(path.read_bytes(), f"btf_trace_{name}", TYPEDEF)
    if number is None:
        raise OSError(0, f"this kernel has no tracepoint {name} (it came with 6.3)")
    return number
