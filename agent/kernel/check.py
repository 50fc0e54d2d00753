"""`sonde-agent check`: what this machine has of what the programs need, and what to do about the rest.

Features are tried, not derived from version numbers. Nothing is attached and nothing stays.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import bpfsys, btf, cgroups, headers, loader, pins, steer_loader, steer_pins
from agent.kernel.hooks import Hook
from agent.kernel.pins import Pins
from agent.kernel.steer_pins import SteerPins

# linux/capability.h
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_NO_DESCRIPTOR = 0x7FFFFFFF
_RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")
_RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit


@dataclass(frozen=True, slots=True)
class Requirement:
    name: str
    found: bool
    detail: str  # what was found, or how it is missing
    consequence: str = ""
    remedy: str = ""
    needed: bool = True  # False: Sonde works without, with less


def preflight(where: Pins, cgroup_root: Path | None = None) -> list[Requirement]:
    """Every requirement of loading and running the programs, in the order one would mend them."""
    return [
        _capabilities(),
        _cgroup2(cgroup_root),
        _cgroup_programs(cgroup_root),
        _links(),
        _mmapable_arrays(),
        _bcc(),
        _headers(),
        _bpffs(where),
        _calls(),
        _steering(),
    ]


def missing(requirements: list[Requirement]) -> list[Requirement]:
    return [requirement for requirement in requirements if requirement.needed and not requirement.found]


def main(where: Pins, cgroup_root: Path | None = None) -> int:
    """Prints the table. Exit code 0 when everything needed is there, else 1."""
    requirements = preflight(where, cgroup_root)
    for line in table(requirements):
        print(line)
    print(_state(where))
    print(_steering_state(where))
    return 1 if missing(requirements) else 0


def table(requirements: list[Requirement]) -> list[str]:
    width = max(len(requirement.name) for requirement in requirements)
    lines = []
    for requirement in requirements:
        mark = "yes" if requirement.found else ("NO " if requirement.needed else "no ")
        lines.append(f"{mark}  {requirement.name:<{width}}  {requirement.detail}")
        if not requirement.found:
            lines.append(f"     {'':<{width}}  without it: {requirement.consequence}")
            lines.append(f"     {'':<{width}}  remedy: {requirement.remedy}")
    return lines


def _steering_state(where: Pins) -> str:
    try:
        hooks = steer_loader.attached(where)
    except OSError as error:
        return f"steering: the pins cannot be read ({error.strerror})"
    if not hooks:
        return "steering: not loaded; 'sonde-agent load --steer' does"
    return f"steering: {_listed(hooks)} under {SteerPins(where).folder}"


def _listed(hooks: list[Hook]) -> str:
    return ", ".join(f"{hook.name} {hook.program.tag if hook.program else '(unknown)'}" for hook in hooks)


def _state(where: Pins) -> str:
    try:
        hooks = loader.attached(where)
    except OSError as error:
        return f"programs: {where.folder} cannot be read ({error.strerror})"
    if not hooks:
        return f"programs: none loaded under {where.root}"
    level = "level 2, segments and calls" if where.follows_calls() else "level 1, segments"
    return f"programs: {_listed(hooks)} under {where.folder}; measurement is of {level}"


def _requirement(
    name: str, attempt: Callable[[], str], consequence: str, remedy: str, needed: bool = True
) -> Requirement:
    """Runs an attempt that returns what it found or raises OSError with why not."""
    try:
        return Requirement(name, True, attempt(), needed=needed)
    except (OSError, cgroups.NoCgroup2, headers.NoHeaders) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Requirement(name, False, text, consequence, remedy, needed)


def _capabilities() -> Requirement:
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    held = {name for name, bit in _CAPABILITIES.items() if effective >> bit & 1}
    enough = "CAP_SYS_ADMIN" in held or {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"} <= held
    return Requirement(
        "capabilities",
        enough,
        ", ".join(sorted(held)) or "none of CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
        "programs cannot be loaded; the controller still works on engine metrics and its own reservations",
        "run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
    )


def _cgroup2(cgroup_root: Path | None) -> Requirement:
    def attempt() -> str:
        tree = cgroup_root or cgroups.root()
        cgroups.identity(tree)
        return str(tree)

    return _requirement(
        "cgroup v2",
        attempt,
        "sockets cannot be told apart by pod",
        "boot with systemd.unified_cgroup_hierarchy=1, or name the tree with --cgroup-root",
    )


def _cgroup_programs(cgroup_root: Path | None) -> Requirement:
    def attempt() -> str:
        fd = os.open(cgroup_root or cgroups.root(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = sum(len(bpfsys.programs_attached(fd, kind)) for kind in pins.LINKS.values())
        finally:
            os.close(fd)
        return f"{found} programs at the hooks of the root"

    return _requirement(
        "programs on cgroups",
        attempt,
        "there is no hook to attach to",
        "a kernel built with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF, and the capabilities above",
    )


def _links() -> Requirement:
    def attempt() -> str:
        try:
            bpfsys.link_create(_NO_DESCRIPTOR, _NO_DESCRIPTOR, pins.INGRESS)
        except OSError as error:
            if error.errno != errno.EBADF:  # a kernel that knows the command stumbles over the descriptor
                raise
        return "BPF_LINK_CREATE is known"

    return _requirement(
        "links",
        attempt,
        "programs could not be attached without being left behind by a crash",
        "kernel 5.7 or newer, and the capabilities above",
    )


def _mmapable_arrays() -> Requirement:
    def attempt() -> str:
        os.close(bpfsys.map_create(bpfsys.MAP_TYPE_ARRAY, 4, 8, 1, bpfsys.F_MMAPABLE, "sonde_probe"))
        return "BPF_F_MMAPABLE is known"

    return _requirement(
        "mappable arrays",
        attempt,
        "counts could not be read without a system call per pod",
        "kernel 5.5 or newer, and the capabilities above",
    )


def _bcc() -> Requirement:
    spec = importlib.util.find_spec("bcc")
    # PyPI's bcc, a crystallography package, has no libbcc module
    right = spec is not None and importlib.util.find_spec("bcc.libbcc") is not None
    return Requirement(
        "bcc",
        right,
        str(spec.origin)
        if spec and right
        else "no eBPF bcc for this Python"
        if spec is None
        else "PyPI's unrelated 'bcc'",
        "programs cannot be compiled",
        "install the distribution's python3-bpfcc and use an environment made with --system-site-packages",
    )


def _headers() -> Requirement:
    return _requirement(
        "kernel headers",
        lambda: headers.find().origin,
        "programs cannot be compiled",
        "install linux-headers-amd64 (Debian) or linux-headers-generic (Ubuntu); any version does",
    )


def _bpffs(where: Pins) -> Requirement:
    mounted = loader.is_bpffs(where.root.parent)
    able = mounted or os.geteuid() == 0
    return Requirement(
        "bpf file system",
        able,
        f"mounted at {where.root.parent}" if mounted else "not mounted; load will mount it" if able else "not mounted",
        "counts cannot outlive the process that loads the programs",
        f"mount -t bpf bpf {where.root.parent}",
    )


def _calls() -> Requirement:
    def attempt() -> str:
        for tracepoint in pins.CALLS.values():
            os.close(bpfsys.tracepoint_program(_RETURN_0, btf.tracepoint(tracepoint), "sonde_probe"))
        return "level 2: " + ", ".join(pins.CALLS.values())

    return _requirement(
        "write and read calls",
        attempt,
        "level 1: chunks are counted by segments, which merge under loss, and there are no read delays",
        "kernel 6.3 or newer with CONFIG_DEBUG_INFO_BTF, and the capabilities above",
        needed=False,
    )


def _steering() -> Requirement:
    def attempt() -> str:
        for kind in (steer_pins.CONNECT4, steer_pins.CONNECT6, steer_pins.GETPEERNAME4, steer_pins.GETPEERNAME6):
            os.close(bpfsys.address_program(_RETURN_1, "sonde_probe", kind))
        return "connect and getpeername, of IPv4 and IPv6"

    return _requirement(
        "steering",
        attempt,
        "connections that no gateway picks for go wherever kube-proxy sends them ('load --steer' fails)",
        "kernel 5.8 or newer, and the capabilities above",
        needed=False,
    )
