"""`sonde-agent load` and `unload`: programs onto a cgroup and off it again, through pinned links.

Loading runs in a short-lived process because bcc brings a compiler. What it leaves are pins: maps that
hold the counts and links that hold the programs at their hooks. Loading again takes the maps over and
replaces each link's program in one step, so nothing is counted twice and nothing is missed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from agent.kernel import bpfsys, cgroups, layout, pins, steer_loader
from agent.kernel.hooks import Hook, LoaderError, create_link, hook_at
from agent.kernel.pins import Pins

if TYPE_CHECKING:  # importing it costs a compiler
    from agent.kernel.probes import Programs

log = logging.getLogger(__name__)

# First request lines that are not inference: probes, scrapes and listings. Longest match wins in the kernel.
EXCLUDED_PREFIXES = (
    "GET /health",
    "GET /healthz",
    "GET /livez",
    "GET /readyz",
    "GET /ready",
    "GET /live",
    "GET /ping",
    "GET /metrics",
    "GET /prometheus/metrics",
    "GET /version",
    "GET /load",
    "GET /v1/models",
    "GET /v1/loads",
    "GET /v2/health/",
    "GET /v2/models",
    "GET /get_model_info",
    "GET /get_server_info",
    "GET /kv_event_sources",
    "HEAD /",
)

_ELEMENT_0 = bytes(4)


def load(where: Pins, attach_cgroup: Path | None, steer: bool = False) -> int:
    """Exit code 0 when the programs of this version are attached afterwards, 1 with a line on what stood in the way.

    Those that steer are attached only where asked for, and taken away where they were and are not any more.
    """
    from agent.kernel import check
    from agent.kernel.probes import LoadError

    lacking = check.missing(check.preflight(where))
    if lacking:
        print_lines(["sonde-agent load: this machine lacks what the programs need", *check.table(lacking)])
        return 1
    try:
        cgroup = attach_cgroup or cgroups.default_attach_point(cgroups.root())
        with _locked(where):
            print_lines(_load(where, cgroup))
            print_lines(steer_loader.settle(where, cgroup, steer))
    except (LoaderError, LoadError, cgroups.NoCgroup2) as error:
        print_lines([f"sonde-agent load: {error}"])
        return 1
    return 0


def unload(where: Pins) -> int:
    """Exit code 0 when nothing of Sonde is left under the pin root."""
    try:
        with _locked(where):
            removed = pins.remove(where)
    except (LoaderError, OSError) as error:
        print_lines([f"sonde-agent unload: {error}; run as root, on the node itself"])
        return 1
    where.lock.unlink(missing_ok=True)
    links = sum(path.name.startswith("link_") for path in removed)
    print_lines(
        [f"unloaded: {links} links and {len(removed) - links} maps removed from {where.root}"]
        if removed
        else [f"nothing is loaded under {where.root}"]
    )
    return 0


def print_lines(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)


@contextlib.contextmanager
def _locked(where: Pins) -> Iterator[None]:
    """Two loaders at once would attach twice; the second is told so."""
    try:
        descriptor = os.open(where.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LoaderError(f"cannot open the lock {where.lock}: {error.strerror}; run as root") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LoaderError(
            f"another load or unload holds {where.lock}; it will finish in seconds, then run again"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)


def _load(where: Pins, cgroup: Path) -> list[str]:
    _prepare_folder(where)
    present = attached(where)
    wanted = cgroups.identity(cgroup)
    for hook in present:
        if hook.cgroup_id != wanted:
            raise LoaderError(
                f"already attached to another cgroup (id {hook.cgroup_id}) than {cgroup} (id {wanted}): "
                "run 'sonde-agent unload' first, or load with the same --attach-cgroup"
            )
    _check_reused_maps(where)
    with ExitStack() as undo:
        if not present:  # half a load is worse than none
            undo.callback(pins.remove_folder, where.folder)
        lines = _load_and_attach(where, cgroup)
        undo.pop_all()
    _remove_other_layouts(where)
    return [f"loaded under {where.folder}, attached to {cgroup}", *lines]


def _load_and_attach(where: Pins, cgroup: Path) -> list[str]:
    from agent.kernel import probes

    programs = probes.load(where)
    _set_up_maps(programs, where)
    lines = [_attach(where, name, attach_type, cgroup, programs.fds[name]) for name, attach_type in pins.LINKS.items()]
    return lines + [_attach_call(where, name, programs) for name in pins.CALLS]


def _prepare_folder(where: Pins) -> None:
    base = where.root.parent
    if not is_bpffs(base):
        try:
            bpfsys.mount_bpffs(base)
        except OSError as error:
            raise LoaderError(
                f"{base} is no bpf file system and could not be mounted ({error.strerror}): "
                f"run as root 'mount -t bpf bpf {base}', or mount the host's one into the container"
            ) from error
    try:
        where.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoaderError(f"cannot make {where.folder}: {error.strerror}; run as root") from error


def is_bpffs(path: Path) -> bool:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    folders = [Path(fields[1]) for fields in mounts if fields[2] == "bpf"]
    return any(folder == path or folder in path.parents for folder in folders)


def attached(where: Pins) -> list[Hook]:
    """What is attached now, read from the pinned links."""
    found = [hook_at(name, where.link(name)) for name in pins.LINKS]
    return [hook for hook in found if hook is not None]


def _check_reused_maps(where: Pins) -> None:
    """bcc takes a pinned map over without looking at its shape; a wrong one would corrupt memory of ours."""
    expected = {"slots": layout.SLOT.itemsize, "counters": layout.COUNTERS.itemsize, "owners": layout.OWNER.itemsize}
    for name, value_bytes in expected.items():
        try:
            fd = bpfsys.open_pinned(where.map(name))
        except FileNotFoundError:
            continue
        info = bpfsys.map_info(fd)
        os.close(fd)
        if info.value_bytes != value_bytes:
            raise LoaderError(
                f"{where.map(name)} holds values of {info.value_bytes} bytes, this version needs {value_bytes}: "
                "run 'sonde-agent unload', then load again"
            )


def _set_up_maps(programs: Programs, where: Pins) -> None:
    continuations = bpfsys.open_pinned(where.map("continuations"))
    programs.fill_continuations(continuations)
    os.close(continuations)
    control = bpfsys.open_pinned(where.map("control"))
    # epoch 0 would mean "looked up already" to a socket that never was
    if bpfsys.map_lookup(control, _ELEMENT_0, layout.CONTROL.itemsize) == bytes(layout.CONTROL.itemsize):
        bpfsys.map_update(control, _ELEMENT_0, struct.pack("<QQ", 1, 0))
    os.close(control)
    classes = bpfsys.open_pinned(where.map("classes"))
    for text in EXCLUDED_PREFIXES:
        prefix = text.encode()
        key = struct.pack(f"<I{layout.NUMBERS['SONDE_CLASS_PREFIX_BYTES']}s", len(prefix) * 8, prefix)
        bpfsys.map_update(classes, key, struct.pack("<I", layout.NUMBERS["SONDE_CLASS_EXCLUDED"]))
    os.close(classes)


def _attach(where: Pins, name: str, attach_type: int, cgroup: Path, program_fd: int) -> str:
    path = where.link(name)
    tag = bpfsys.program_info(program_fd).tag
    try:
        link_fd = bpfsys.open_pinned(path)
    except FileNotFoundError:
        link_fd = create_link(name, attach_type, cgroup, program_fd)
        bpfsys.pin(link_fd, path)
        os.close(link_fd)
        return f"  {name}: attached, program {tag}"
    before = next(hook for hook in attached(where) if hook.name == name).program
    bpfsys.link_update(link_fd, program_fd)
    os.close(link_fd)
    same = before is not None and before.tag == tag
    return f"  {name}: {'already attached' if same else 'updated in place'}, program {tag}"


def _attach_call(where: Pins, name: str, programs: Programs) -> str:
    """A program on a tracepoint. Its links cannot be updated: a changed one is replaced, with a moment of none."""
    path = where.link(name)
    try:
        program_fd = programs.tracing(name)
    except OSError as error:
        path.unlink(missing_ok=True)
        return f"  {name}: not attached, {error.strerror or error}; chunks are counted by segments"
    try:
        tag = bpfsys.program_info(program_fd).tag
        if attached_tag(path) == tag:
            return f"  {name}: already attached, program {tag}"
        path.unlink(missing_ok=True)
        link_fd = bpfsys.tracepoint_link(program_fd)
        bpfsys.pin(link_fd, path)
        os.close(link_fd)
    finally:
        os.close(program_fd)
    return f"  {name}: attached, program {tag}"


def attached_tag(link: Path) -> str | None:
    """The tag of the program behind a pinned link; None where there is no link, or it is not for us to look."""
    hook = hook_at("", link)
    return hook.program.tag if hook and hook.program else None


def _remove_other_layouts(where: Pins) -> None:
    for folder in where.root.iterdir():
        if folder != where.folder:
            log.info("removing pins of another layout: %s", folder)
            pins.remove_folder(folder)
