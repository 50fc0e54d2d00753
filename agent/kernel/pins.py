"""Where programs' links and maps are pinned, and what each pin is.

Everything lives under `<root>/v<layout>/`, root being /sys/fs/bpf/sonde unless told otherwise. Pins outlive
the processes that made them: that is how a restart of the agent loses no count.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import bpfsys, layout

DEFAULT_ROOT = Path("/sys/fs/bpf/sonde")

# attach types of linux/bpf.h
INGRESS = 0
EGRESS = 1
SOCK_OPS = 3

LINKS = {"ingress": INGRESS, "egress": EGRESS, "lifecycle": SOCK_OPS}
# links that a kernel may not offer -> their tracepoint
CALLS = {"writes": "sock_send_length", "reads": "sock_recv_length"}
MAPS = ("slots", "owners", "classes", "control", "counters", "continuations", "flows", "streams")


@dataclass(frozen=True, slots=True)
class Pins:
    root: Path = DEFAULT_ROOT

    @property
    def folder(self) -> Path:
        return self.root / f"v{layout.LAYOUT}"

    @property
    def lock(self) -> Path:
        """bpffs holds no ordinary files, so the lock is beside where daemons keep theirs."""
        return Path("/run") / ("sonde" + str(self.root).replace("/", "-") + ".lock")

    def link(self, name: str) -> Path:
        return self.folder / f"link_{name}"

    def map(self, name: str) -> Path:
        return self.folder / name

    def loaded(self) -> bool:
        return all(self.link(name).exists() for name in LINKS)

    def follows_calls(self) -> bool:
        """Whether the applications' write and read calls are measured, beside the segments."""
        return all(self.link(name).exists() for name in CALLS)


class NotLoaded(Exception):
    """No programs are pinned where they were looked for."""


def open_map(pins: Pins, name: str) -> int:
    """A file descriptor of a pinned map. Raises NotLoaded or PermissionError, saying what to do."""
    path = pins.map(name)
    try:
        return bpfsys.open_pinned(path)
    except FileNotFoundError:
        raise NotLoaded(f"{path} is not there: run 'sonde-agent load' first") from None
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"may not open {path}: run as root or with CAP_BPF, and give access to {pins.root}"
        ) from None


def remove(pins: Pins) -> list[Path]:
    """Unpins everything of every layout under the root; links detach with their last pin. Returns what went."""
    return remove_folder(pins.root) if pins.root.is_dir() else []


def remove_folder(top: Path) -> list[Path]:
    removed: list[Path] = []
    for folder, _, names in os.walk(top, topdown=False):
        # links first: a program must not run on after its maps' names are gone
        for name in sorted(names, key=lambda n: not n.startswith("link_")):
            path = Path(folder) / name
            path.unlink()
            removed.append(path)
        Path(folder).rmdir()
    return removed
