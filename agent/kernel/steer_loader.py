"""What `sonde-agent load --steer` adds to load, and what load without it takes away: the programs that steer.

Knows hooks, links and pins; refuses to know what is steered where. The caller holds the loader's lock.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from agent.kernel import bpfsys, pins
from agent.kernel.hooks import Hook, LoaderError, create_link, hook_at
from agent.kernel.pins import Pins
from agent.kernel.steer_layout import CONTROL, ENDPOINT, KEY, POOL, SERVICE
from agent.kernel.steer_pins import LINKS, SteerPins

_SHAPES = {
    "steer_services": (KEY.itemsize, SERVICE.itemsize),
    "steer_pools": (4, POOL.itemsize),
    "steer_endpoints": (4, ENDPOINT.itemsize),
    "steer_control": (4, CONTROL.itemsize),
}


def attached(where: Pins) -> list[Hook]:
    """What steers now, read from the pinned links."""
    steer = SteerPins(where)
    found = [hook_at(name, steer.link(name)) for name in LINKS]
    return [hook for hook in found if hook is not None]


def settle(where: Pins, cgroup: Path, wanted: bool) -> list[str]:
    """Attaches or updates the programs, or takes them away; returns what was done. Raises LoaderError or LoadError."""
    return _load(where, cgroup) if wanted else _unload(where)


def _unload(where: Pins) -> list[str]:
    folders = SteerPins(where).every_layout()
    for folder in folders:
        pins.remove_folder(folder)
    return ["steering: taken away; load with --steer to have it"] if folders else []


def _load(where: Pins, cgroup: Path) -> list[str]:
    from agent.kernel import probes

    steer = SteerPins(where)
    before = {hook.name: hook for hook in attached(where)}
    _check_reused_maps(steer)
    with ExitStack() as undo:
        if not before:  # half of it is worse than none
            undo.callback(lambda: pins.remove_folder(steer.folder) if steer.folder.is_dir() else [])
        steer.folder.mkdir(exist_ok=True)
        programs = probes.load_steering(steer.folder)
        lines = [_attach(steer, name, cgroup, programs.fds[name], before.get(name)) for name in LINKS]
        undo.pop_all()
    for folder in steer.every_layout():
        if folder != steer.folder:
            pins.remove_folder(folder)
    return [f"steering: loaded under {steer.folder}", *lines]


def _attach(steer: SteerPins, name: str, cgroup: Path, program_fd: int, before: Hook | None) -> str:
    tag = bpfsys.program_info(program_fd).tag
    if before is None:
        link_fd = create_link(name, LINKS[name], cgroup, program_fd)
        bpfsys.pin(link_fd, steer.link(name))
        os.close(link_fd)
        return f"  {name}: attached, program {tag}"
    link_fd = bpfsys.open_pinned(steer.link(name))
    bpfsys.link_update(link_fd, program_fd)
    os.close(link_fd)
    same = before.program is not None and before.program.tag == tag
    return f"  {name}: {'already attached' if same else 'updated in place'}, program {tag}"


def _check_reused_maps(steer: SteerPins) -> None:
    """bcc takes a pinned map over without looking at its shape; a wrong one would corrupt memory of ours."""
    for name, shape in _SHAPES.items():
        try:
            fd = bpfsys.open_pinned(steer.map(name))
        except FileNotFoundError:
            continue
        info = bpfsys.map_info(fd)
        os.close(fd)
        if (info.key_bytes, info.value_bytes) != shape:
            raise LoaderError(
                f"{steer.map(name)} holds keys of {info.key_bytes} and values of {info.value_bytes} bytes, this "
                f"version needs {shape[0]} and {shape[1]}: run 'sonde-agent unload', then load again"
            )
