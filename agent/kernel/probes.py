"""Compiles and loads the programs of bpf/. The only door to bcc.

Importing this costs 70 MB and a compiler, so only the short-lived `sonde-agent load` and the kernel tests do.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from agent.kernel import bpfsys, btf, headers, pins, steer_pins
from agent.kernel.pins import Pins
from agent.kernel.relocation import relocated

CGROUP_SKB = 8
SOCK_OPS = 13
CGROUP_SOCK_ADDR = 18
Wanted = Mapping[str, tuple[str, int] | tuple[str, int, int]]  # with the attach type where it is one of several
ANY = -1  # attach type of programs that fit every hook of their type

# program -> (bcc function, program type); the first three are linked to hooks
PROGRAMS = {
    "ingress": ("sonde_ingress", CGROUP_SKB),
    "egress": ("sonde_egress", CGROUP_SKB),
    "lifecycle": ("sonde_lifecycle", SOCK_OPS),
    "header": ("sonde_header", CGROUP_SKB),
    "chunks": ("sonde_chunks", CGROUP_SKB),
    "next": ("sonde_next", CGROUP_SKB),
    "frames_in": ("sonde_frames_in", CGROUP_SKB),
    "frames_out": ("sonde_frames_out", CGROUP_SKB),
}
# reached by tail call; their places in the map `continuations`, as enum continuation of bpf/maps.h has them
CONTINUATIONS = ("header", "chunks", "next", "frames_in", "frames_out")
# loaded only where the kernel has the tracepoint of pins.CALLS
CALLS = {"writes": "sonde_write", "reads": "sonde_read"}
# of bpf/steer.c, which is loaded only where it is asked for
STEERING = {
    "connect4": ("sonde_connect4", CGROUP_SOCK_ADDR, steer_pins.CONNECT4),
    "connect6": ("sonde_connect6", CGROUP_SOCK_ADDR, steer_pins.CONNECT6),
    "getpeername4": ("sonde_getpeername4", CGROUP_SOCK_ADDR, steer_pins.GETPEERNAME4),
    "getpeername6": ("sonde_getpeername6", CGROUP_SOCK_ADDR, steer_pins.GETPEERNAME6),
    "established": ("sonde_steer_established", SOCK_OPS, ANY),
}

# bcc optimises by itself what clang gives it; that clang does so before doubles nothing but the time it takes
_FLAGS = ("-Wno-macro-redefined", "-Wno-unknown-attributes", "-Xclang", "-disable-llvm-passes")

_QUOTED_INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)


class LoadError(Exception):
    """The kernel or bcc refused the programs; the text says which one, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Loaded programs by name; they live as long as `module` or a pin."""

    module: Any
    fds: dict[str, int]
    moved: Mapping[int, int]  # maps as they were compiled in -> those that are pinned

    def map_fd(self, name: str) -> int:
        return int(self.module[name.encode()].map_fd)

    def tracing(self, name: str) -> int:
        """Loads one of CALLS. Raises OSError where the kernel has not what it needs."""
        btf_id = btf.tracepoint(pins.CALLS[name])
        code = relocated(self.module.dump_func(CALLS[name].encode()), self.moved)
        return bpfsys.tracepoint_program(code, btf_id, CALLS[name])

    def fill_continuations(self, map_fd: int) -> None:
        for place, name in enumerate(CONTINUATIONS):
            bpfsys.map_update(map_fd, struct.pack("<I", place), struct.pack("<I", self.fds[name]))


def load(where: Pins | None = None, defines: tuple[str, ...] = ()) -> Programs:
    """Compiles bpf/track.c and loads every program; maps are made, or taken over, under `where` if given.

    Raises LoadError.
    """
    return _load("track.c", PROGRAMS, pins.MAPS, where.folder if where else None, defines)


def load_steering(pinned_at: Path | None = None) -> Programs:
    """The same of bpf/steer.c. Raises LoadError."""
    return _load("steer.c", STEERING, steer_pins.MAPS, pinned_at)


def _load(
    name: str, wanted: Wanted, maps: Sequence[str], pinned_at: Path | None, defines: tuple[str, ...] = ()
) -> Programs:
    tree = _headers()
    os.environ["BCC_KERNEL_SOURCE"] = str(tree.path)
    try:
        from bcc import BPF
    except ImportError as error:
        raise LoadError(
            "bcc is not to be imported: install the distribution's python3-bpfcc (not PyPI's 'bcc', which is "
            "another project) and use an environment made with --system-site-packages over the distribution's Python"
        ) from error
    flags = [*_FLAGS, *(f"-D{define}" for define in defines)]
    try:
        module = BPF(text=source(name).encode(), cflags=flags)
        moved = _pinned(module, maps, pinned_at) if pinned_at else {}
        fds = {name: _load_one(module, moved, *program) for name, program in wanted.items()}
    except Exception as error:  # bcc raises bare Exception for whatever went wrong
        text = str(error)[:300]
        raise LoadError(f"{text} (headers: {tree.origin}); run 'sonde-agent check' to see what is missing") from error
    return Programs(module, fds, moved)


def _pinned(module: Any, maps: Sequence[str], folder: Path) -> dict[int, int]:
    """Pins the module's maps, or finds those that are pinned: by the compiled one's descriptor the pinned one's.

    bcc could take pinned maps over by itself, but opens them by their ids, for which Linux wants CAP_SYS_ADMIN.
    """
    from bcc.libbcc import lib

    moved = {}
    for name in maps:
        compiled = int(lib.bpf_table_fd(module.module, name.encode()))
        try:
            moved[compiled] = bpfsys.open_pinned(folder / name)
        except FileNotFoundError:
            bpfsys.pin(compiled, folder / name)
    return moved


def source(name: str = "track.c") -> str:
    """One text of a program and its quoted headers: bcc rewrites table calls in the main file alone."""
    folder = files("bpf")
    return _QUOTED_INCLUDE.sub(lambda match: source(match[1]), folder.joinpath(name).read_text())


def _headers() -> headers.HeaderTree:
    try:
        return headers.find()
    except headers.NoHeaders as error:
        raise LoadError(str(error)) from error


def _load_one(module: Any, moved: Mapping[int, int], function: str, kind: int, attach_type: int = ANY) -> int:
    if moved:
        code = relocated(module.dump_func(function.encode()), moved)
        try:
            return bpfsys.program_load(kind, code, function, max(attach_type, 0))
        except OSError as error:
            module.load_func(function.encode(), kind, attach_type=attach_type)  # prints what the verifier says
            raise LoadError(f"{function} over the pinned maps: {error.strerror}") from error
    return int(module.load_func(function.encode(), kind, attach_type=attach_type).fd)
