"""Gives a program other maps than it was compiled with: the pinned ones that hold the counts. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_INSTRUCTION = struct.Struct("<BBhi")  # struct bpf_insn of linux/bpf.h: code, registers, offset, immediate
_LOAD_64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM, two instructions long
_MAP_FD, _MAP_VALUE = 1, 2  # in the source register: the immediate is a map's descriptor


def relocated(instructions: bytes, moved: Mapping[int, int]) -> bytes:
    """The instructions with each map's descriptor replaced by what `moved` has for it; others stay."""
    code = bytearray(instructions)
    at = 0
    while at < len(code):
        operation, registers, offset, immediate = _INSTRUCTION.unpack_from(code, at)
        if operation == _LOAD_64 and registers >> 4 in (_MAP_FD, _MAP_VALUE):
            _INSTRUCTION.pack_into(code, at, operation, registers, offset, moved.get(immediate, immediate))
        at += 2 * _INSTRUCTION.size if operation == _LOAD_64 else _INSTRUCTION.size
    return bytes(code)
