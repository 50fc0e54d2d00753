"""Reads bpf/wire.h, so that a field shared with the kernel is declared in one place.

The header keeps to a form this reader understands: `#define SONDE_NAME number`, and structs of u64, s64
and u32 members (arrays of them too), one a line. Anything else there raises LayoutError at import.
"""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np

_TYPES = {"u64": "<u8", "s64": "<i8", "u32": "<u4"}
_DEFINE = re.compile(r"^#define\s+(SONDE_\w+)\s+(\d+)\b", re.MULTILINE)
_MEMBER = re.compile(r"^\s*(\w+)\s+(\w+)(?:\[(\w+)\])?\s*;\s*(?:/\*.*)?$")


class LayoutError(Exception):
    """bpf/wire.h holds something this reader does not understand."""


def constants(header: str) -> dict[str, int]:
    return {name: int(number) for name, number in _DEFINE.findall(header)}


def struct_dtype(header: str, name: str) -> np.dtype[np.void]:
    """The numpy type of `struct <name>`; member order, offsets and size as the compiler lays them out."""
    match = re.search(rf"^struct {name} \{{\n(.*?)^\}};", header, re.MULTILINE | re.DOTALL)
    if match is None:
        raise LayoutError(f"bpf/wire.h has no struct {name}")
    numbers = constants(header)
    members: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for line in match[1].splitlines():
        member = _MEMBER.match(line)
        if member is None:
            if line.strip().startswith(("/*", "*")):
                continue
            raise LayoutError(f"bpf/wire.h, struct {name}: cannot read {line.strip()!r}")
        kind, field, length = member.groups()
        if kind not in _TYPES:
            raise LayoutError(f"bpf/wire.h, struct {name}: {field} is a {kind}, not one of {', '.join(_TYPES)}")
        if length is None:
            members.append((field, _TYPES[kind]))
        else:
            members.append((field, _TYPES[kind], (numbers[length] if length in numbers else int(length),)))
    return np.dtype(members, align=True)


HEADER = files("bpf").joinpath("wire.h").read_text()
NUMBERS = constants(HEADER)
LAYOUT = NUMBERS["SONDE_LAYOUT"]
BUCKETS = NUMBERS["SONDE_BUCKETS"]
SLOT = struct_dtype(HEADER, "sonde_slot")
COUNTERS = struct_dtype(HEADER, "sonde_counters")
KEY = struct_dtype(HEADER, "sonde_key")
OWNER = struct_dtype(HEADER, "sonde_owner")
CONTROL = struct_dtype(HEADER, "sonde_control")


def bucket_index(value_us: int) -> int:
    """The histogram bucket of a value, as bpf/histogram.h computes it."""
    value = min(value_us, 0xFFFFFFFF)
    if value < 8:
        return value
    exponent = value.bit_length() - 1
    return (exponent - 2) * 8 + ((value >> (exponent - 3)) & 7)


def bucket_upper_us(index: int) -> int:
    """The first microsecond beyond a bucket: bucket i holds values in [upper(i - 1), upper(i))."""
    if index < 8:
        return index + 1
    exponent, mantissa = index // 8 + 2, index % 8
    return (8 + mantissa + 1) << (exponent - 3)
