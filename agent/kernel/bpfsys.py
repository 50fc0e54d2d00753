"""The bpf(2) system call: maps, links and pins by file descriptor.

bcc offers neither links nor LINK_UPDATE, and a reader of pinned maps must not load LLVM, so the few
commands needed are issued here. Attribute layouts are those of `union bpf_attr` in linux/bpf.h.

Every function raises OSError with the kernel's errno; callers translate what they expect.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

_SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_ATTR_BYTES = 128  # larger than any command here; the kernel requires the unused tail to be zero

_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_MAP_GET_NEXT_KEY = 4
_PROG_LOAD = 5
_OBJ_PIN = 6
_OBJ_GET = 7
_PROG_TEST_RUN = 10
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_PROG_QUERY = 16
_RAW_TRACEPOINT_OPEN = 17
_LINK_CREATE = 28
_LINK_UPDATE = 29
_ENABLE_STATS = 32

MAP_TYPE_HASH = 1
MAP_TYPE_ARRAY = 2
F_MMAPABLE = 1 << 10

# program types
_CGROUP_SKB = 8
_CGROUP_SOCK_ADDR = 18
_TRACING = 26
_TRACE_RAW_TP = 23  # attach type

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MapInfo:
    type: int
    id: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    type: int
    id: int
    tag: str  # hash of the instructions: equal tags are the same program
    name: str
    verified_instructions: int
    run_time_ns: int  # 0 unless run-time statistics are enabled
    run_count: int


@dataclass(frozen=True, slots=True)
class TestRun:
    return_value: int
    duration_ns: int  # mean of one run


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Returns the result and the attribute union as the kernel left it."""
    number = _SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise OSError(0, f"the number of bpf(2) on {platform.machine()} is not known")
    buffer = ctypes.create_string_buffer(attributes, _ATTR_BYTES)
    result = _libc.syscall(number, command, buffer, _ATTR_BYTES)
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result, buffer.raw


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def map_create(
    map_type: int, key_bytes: int, value_bytes: int, max_entries: int, flags: int = 0, name: str = ""
) -> int:
    attributes = struct.pack(
        "<IIIIIII16s", map_type, key_bytes, value_bytes, max_entries, flags, 0, 0, name.encode()[:15]
    )
    return _bpf(_MAP_CREATE, attributes)[0]


def map_lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value, or None where there is none."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_bytes)
    try:
        _bpf(_MAP_LOOKUP_ELEM, struct.pack("<IIQQQ", fd, 0, _address(key_buffer), _address(value), 0))
    except FileNotFoundError:
        return None
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", fd, 0, _address(key_buffer), _address(value_buffer), 0))


def map_delete(fd: int, key: bytes) -> bool:
    """False where the key was not there."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(_MAP_DELETE_ELEM, struct.pack("<IIQ", fd, 0, _address(key_buffer)))
    except FileNotFoundError:
        return False
    return True


def map_keys(fd: int, key_bytes: int) -> list[bytes]:
    """Every key now in the map; keys deleted meanwhile may restart the walk, so duplicates are dropped."""
    keys: dict[bytes, None] = {}
    following = ctypes.create_string_buffer(key_bytes)
    address = 0
    while True:
        try:
            _bpf(_MAP_GET_NEXT_KEY, struct.pack("<IIQQ", fd, 0, address, _address(following)))
        except FileNotFoundError:
            return list(keys)
        if following.raw in keys:
            return list(keys)
        keys[following.raw] = None
        current = ctypes.create_string_buffer(following.raw, key_bytes)
        address = _address(current)


def map_memory(fd: int, length_bytes: int, writable: bool = False) -> mmap.mmap:
    """The values of a BPF_F_MMAPABLE array; element stride is the value size rounded up to 8."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    page = mmap.PAGESIZE
    return mmap.mmap(fd, (length_bytes + page - 1) // page * page, mmap.MAP_SHARED, protection)


def pin(fd: int, path: Path) -> None:
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(_OBJ_PIN, struct.pack("<QII", _address(name), fd, 0))


def open_pinned(path: Path) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(_OBJ_GET, struct.pack("<QII", _address(name), 0, 0))[0]


def link_create(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attaches beside whatever is there (cgroup links are always BPF_F_ALLOW_MULTI). Kernel 5.7 or newer."""
    return _bpf(_LINK_CREATE, struct.pack("<IIII", program_fd, cgroup_fd, attach_type, 0))[0]


def link_update(link_fd: int, program_fd: int) -> None:
    """Replaces the link's program in one step; events are never seen by both or by none."""
    _bpf(_LINK_UPDATE, struct.pack("<IIII", link_fd, program_fd, 0, 0))


def tracepoint_program(instructions: bytes, btf_id: int, name: str) -> int:
    """Loads a program for the tracepoint whose type in the kernel's BTF has this number. Kernel 5.5 or newer."""
    return program_load(_TRACING, instructions, name, _TRACE_RAW_TP, btf_id)


def packet_program(instructions: bytes, name: str, attach_type: int) -> int:
    """Loads a program for packets of a cgroup."""
    return program_load(_CGROUP_SKB, instructions, name, attach_type)


def address_program(instructions: bytes, name: str, attach_type: int) -> int:
    """Loads a program that sees, and may change, the address a socket connects to or is shown."""
    return program_load(_CGROUP_SOCK_ADDR, instructions, name, attach_type)


def program_load(kind: int, instructions: bytes, name: str, attach_type: int, btf_id: int = 0) -> int:
    """Loads a program of one of the kernel's types (enum bpf_prog_type) and returns its descriptor."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    head = struct.pack("<IIQQ24x", kind, len(instructions) // 8, _address(code), _address(licence))
    attributes = head + struct.pack("<16sII36xI", name.encode()[:15], 0, attach_type, btf_id)
    return _bpf(_PROG_LOAD, attributes)[0]


def tracepoint_link(program_fd: int) -> int:
    """Attaches a program of tracepoint_program(); it is off when the last descriptor and pin of the link are gone."""
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program_fd))[0]


def time_programs() -> int:
    """Makes the kernel time all programs until the descriptor is closed. Kernel 5.8, CAP_SYS_ADMIN."""
    return _bpf(_ENABLE_STATS, struct.pack("<I", 0))[0]


def program_by_id(identity: int) -> int:
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", identity, 0, 0))[0]


def mount_bpffs(folder: Path) -> None:
    """Mounts the file system that pins live in."""
    folder.mkdir(parents=True, exist_ok=True)
    if _libc.mount(b"bpf", os.fsencode(folder), b"bpf", 0, b"mode=0700") != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def _info(fd: int, length: int) -> bytes:
    buffer = ctypes.create_string_buffer(length)
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, length, _address(buffer)))
    return buffer.raw


def map_info(fd: int) -> MapInfo:
    return MapInfo(*struct.unpack_from("<IIIIII", _info(fd, 80)))


def program_info(fd: int) -> ProgramInfo:
    raw = _info(fd, 232)
    kind, identity = struct.unpack_from("<II", raw, 0)
    name = raw[64:80].split(b"\0")[0].decode()
    run_time_ns, run_count = struct.unpack_from("<QQ", raw, 192)
    (verified,) = struct.unpack_from("<I", raw, 216)
    return ProgramInfo(kind, identity, raw[8:16].hex(), name, verified, run_time_ns, run_count)


def programs_attached(cgroup_fd: int, attach_type: int) -> list[int]:
    """Ids of every program at one hook of a cgroup, other owners' included."""
    ids = ctypes.create_string_buffer(4 * 64)
    attributes = struct.pack("<IIIIQI", cgroup_fd, attach_type, 0, 0, _address(ids), 64)
    _, raw = _bpf(_PROG_QUERY, attributes)
    (count,) = struct.unpack_from("<I", raw, 24)
    return list(struct.unpack_from(f"<{count}I", ids.raw))


def link_info(fd: int) -> tuple[int, int, int, int]:
    """(link id, program id, cgroup id, attach type) of a cgroup link."""
    raw = _info(fd, 40)
    _, identity, program = struct.unpack_from("<III", raw, 0)
    cgroup, attach_type = struct.unpack_from("<QI", raw, 16)
    return identity, program, cgroup, attach_type


def program_test_run(program_fd: int, packet: bytes, repeat: int = 1) -> TestRun:
    """Runs a packet program once (or `repeat` times) on an Ethernet frame."""
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = struct.pack("<IIIIQQII", program_fd, 0, len(packet), 0, _address(data), 0, repeat, 0)
    _, raw = _bpf(_PROG_TEST_RUN, attributes)
    return_value = struct.unpack_from("<I", raw, 4)[0]
    duration_ns = struct.unpack_from("<I", raw, 36)[0]
    return TestRun(return_value, duration_ns)
