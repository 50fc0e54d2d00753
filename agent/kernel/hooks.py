"""One program at one hook of a cgroup, through its pinned link: made, and read again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import bpfsys


class LoaderError(Exception):
    """Loading or unloading was not possible; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Hook:
    name: str
    program: bpfsys.ProgramInfo | None  # None: this process may not look it up
    cgroup_id: int


def hook_at(name: str, link: Path) -> Hook | None:
    """What a pinned link says; None where there is none."""
    try:
        link_fd = bpfsys.open_pinned(link)
    except FileNotFoundError:
        return None
    _, program_id, cgroup_id, _ = bpfsys.link_info(link_fd)
    os.close(link_fd)
    return Hook(name, program(program_id), cgroup_id)


def program(identity: int) -> bpfsys.ProgramInfo | None:
    """None where looking a program up is not for us: it takes CAP_SYS_ADMIN, which nothing else here needs."""
    try:
        program_fd = bpfsys.program_by_id(identity)
    except PermissionError:
        return None
    try:
        return bpfsys.program_info(program_fd)
    finally:
        os.close(program_fd)


def create_link(name: str, attach_type: int, cgroup: Path, program_fd: int) -> int:
    """Raises LoaderError."""
    cgroup_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bpfsys.link_create(program_fd, cgroup_fd, attach_type)
    except OSError as error:
        raise LoaderError(
            f"cannot attach {name} to {cgroup}: {error.strerror}. An exclusive program of another agent on a parent "
            "cgroup refuses company (EPERM), a kernel before 5.7 has no links (EINVAL)"
        ) from error
    finally:
        os.close(cgroup_fd)
