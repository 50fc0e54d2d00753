"""Where the programs that steer connections are pinned: beside the measuring ones, which run without them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.kernel.pins import Pins
from agent.kernel.steer_layout import LAYOUT

# attach types of linux/bpf.h
CONNECT4, CONNECT6 = 10, 11
GETPEERNAME4, GETPEERNAME6 = 29, 30
SOCK_OPS = 3

# the address that is asked for must be shown before any is replaced
LINKS = {
    "getpeername4": GETPEERNAME4,
    "getpeername6": GETPEERNAME6,
    "established": SOCK_OPS,
    "connect4": CONNECT4,
    "connect6": CONNECT6,
}

# what a pinned program is given in place of the maps it was compiled with
MAPS = (
    "steer_tables",
    "steer_services",
    "steer_skips",
    "steer_pools",
    "steer_endpoints",
    "steer_control",
    "steer_origins",
)


@dataclass(frozen=True, slots=True)
class SteerPins:
    of: Pins

    @property
    def folder(self) -> Path:
        return self.of.folder / f"steer{LAYOUT}"

    def link(self, name: str) -> Path:
        return self.folder / f"link_{name}"

    def map(self, name: str) -> Path:
        return self.folder / name

    def loaded(self) -> bool:
        return all(self.link(name).exists() for name in LINKS)

    def every_layout(self) -> list[Path]:
        """The folders that this or another version left."""
        return sorted(self.of.folder.glob("steer[0-9]*"))
