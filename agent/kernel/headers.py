"""Finds a header tree that bcc can compile with, or assembles one.

The programs use UAPI structs only, so headers of any kernel version do. bcc wants one tree with everything;
distributions split theirs in a common and an architecture package (Debian: -common and -amd64, Ubuntu:
linux-headers-N and linux-headers-N-generic), so both are merged by symbolic links in a cache folder. Nothing
is written below /lib/modules or /usr.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ARCH = {"x86_64": "x86", "aarch64": "arm64", "ppc64le": "powerpc", "s390x": "s390", "riscv64": "riscv"}
_NEEDED = ("include/linux/kconfig.h", "include/uapi/linux/bpf.h", "include/generated/autoconf.h")
_SOURCES = Path("/usr/src")
_CACHE = Path("/var/cache/sonde")


class NoHeaders(Exception):
    """No kernel headers of any version are installed."""


@dataclass(frozen=True, slots=True)
class HeaderTree:
    path: Path
    origin: str


def is_whole(tree: Path) -> bool:
    return all((tree / name).is_file() for name in _NEEDED)


def find(release: str | None = None, sources: Path = _SOURCES, cache: Path = _CACHE) -> HeaderTree:
    """The tree to give bcc as BCC_KERNEL_SOURCE. Raises NoHeaders with the package to install."""
    release = release or platform.release()
    chosen = os.environ.get("BCC_KERNEL_SOURCE")
    if chosen:
        return HeaderTree(Path(chosen), "BCC_KERNEL_SOURCE")
    running = Path("/lib/modules") / release / "build"
    if is_whole(running):
        return HeaderTree(running, "the running kernel's own")
    for tree in _newest_first(sources):
        if is_whole(tree):
            return HeaderTree(tree, str(tree))
        common = _common_half(tree)
        if common is not None:
            merged = _merge(tree, common, cache)
            if is_whole(merged):
                return HeaderTree(merged, f"{tree.name} and {common.name}, merged")
    raise NoHeaders(
        f"no kernel headers under {running} or {sources}; any version does: "
        "install linux-headers-amd64 (Debian) or linux-headers-generic (Ubuntu)"
    )


def _newest_first(sources: Path) -> Iterator[Path]:
    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.name)]

    # trees that were configured for an architecture: only they have the generated headers
    halves = [tree for tree in sources.glob("linux-headers-*") if (tree / "include/generated").is_dir()]
    yield from sorted(halves, key=version, reverse=True)


def _common_half(tree: Path) -> Path | None:
    """Debian: linux-headers-N-amd64 -> linux-headers-N-common. Ubuntu: linux-headers-N-generic -> linux-headers-N."""
    base = tree.name.rpartition("-")[0]
    # cloud flavours have two suffixes: linux-headers-6.1.0-1-cloud-amd64
    for stem in (base, base.rpartition("-")[0]):
        for candidate in (tree.parent / f"{stem}-common", tree.parent / stem):
            if (candidate / "include/linux").is_dir():
                return candidate
    return None


def _merge(specific: Path, common: Path, cache: Path) -> Path:
    """A tree of symbolic links, common files first; done once for each pair."""
    arch = _ARCH.get(platform.machine(), platform.machine())
    user_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sonde"
    for made_before in (cache / specific.name, user_cache / specific.name):
        if is_whole(made_before):
            return made_before
    merged = (cache if _writable(cache) else user_cache) / specific.name
    for half in (common, specific):
        for part in ("include", f"arch/{arch}/include"):
            _link_tree(half / part, merged / part)
    return merged


def _link_tree(source: Path, target: Path) -> None:
    for folder, _, names in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            link = here / name
            if not link.is_symlink():
                link.symlink_to(Path(folder) / name)


def _writable(cache: Path) -> bool:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False  # a read-only root, or not root
    return os.access(cache, os.W_OK)
