"""Types by name, out of a BTF made here and out of the running kernel's where it has one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.kernel import btf

INT, ARRAY, STRUCT, ENUM, TYPEDEF, FUNC, PROTO, ENUM64 = 1, 3, 4, 6, 8, 12, 13, 19


def made(*types: tuple[str, int, int, int]) -> bytes:
    """Types by (name, kind, members, extra bytes)."""
    strings, records = b"\0", b""
    for name, kind, members, extra in types:
        records += struct.pack("<III", len(strings), kind << 24 | members, 0) + bytes(extra)
        strings += name.encode() + b"\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(records), len(records), len(strings))
    return header + records + strings


EVERY_KIND = made(
    ("int", INT, 0, 4), ("list", ARRAY, 0, 12), ("sock", STRUCT, 3, 36), ("colour", ENUM, 2, 16),
    ("wide", ENUM64, 2, 24),
    ("proto", PROTO, 2, 16), ("f", FUNC, 0, 0), ("btf_trace_f", TYPEDEF, 0, 0), ("btf_trace_fg", TYPEDEF, 0, 0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number"), [("btf_trace_f", 8), ("btf_trace_fg", 9), ("btf_trace_", None), ("f", None)]
)
def test_a_typedef_is_found_behind_every_other_kind(name: str, number: int | None) -> None:
    assert btf.type_id(EVERY_KIND, name, btf.TYPEDEF) == number


@pytest.mark.parametrize("raw", [b"", b"short", bytes(100), EVERY_KIND[:40]])
def test_what_is_no_btf_has_no_types(raw: bytes) -> None:
    assert btf.type_id(raw, "btf_trace_f", btf.TYPEDEF) is None


def test_a_kernel_without_the_tracepoint_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(EVERY_KIND)
    with pytest.raises(OSError, match="no tracepoint sock_send_length"):
        btf.tracepoint("sock_send_length", tmp_path / "vmlinux")
    with pytest.raises(FileNotFoundError):
        btf.tracepoint("f", tmp_path / "none")
    assert btf.tracepoint("f", tmp_path / "vmlinux") == 8
