"""Maps in a program's instructions, which are struct bpf_insn of linux/bpf.h."""

from __future__ import annotations

import struct

from agent.kernel.relocation import relocated


def instruction(code: int, source: int, immediate: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | 1, 7, immediate)


REST = bytes(8)  # the second half of a 64 bit load


def test_maps_and_their_values_are_replaced_and_nothing_else_is() -> None:
    before = [
        instruction(0x18, 1, 5) + REST,
        instruction(0x18, 2, 6) + REST,
        instruction(0x18, 0, 5) + REST,  # a number
        instruction(0xB7, 1, 5),  # a move
        instruction(0x18, 1, 9) + REST,  # a map that stays
        instruction(0x18, 0, 1) + instruction(0x18, 1, 5),  # the upper half of a number, whatever it looks like
    ]
    after = [instruction(0x18, 1, 50) + REST, instruction(0x18, 2, 60) + REST, *before[2:]]
    assert relocated(b"".join(before), {5: 50, 6: 60}) == b"".join(after)


def test_no_map_is_moved_twice() -> None:
    assert relocated(instruction(0x18, 1, 5) + REST, {5: 6, 6: 5}) == instruction(0x18, 1, 6) + REST
