"""What the kernel says of our programs at their hooks: attached or not, and how long they ran."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from agent.kernel import bpfsys
from agent.kernel.pins import CALLS, LINKS, Pins


@dataclass(frozen=True, slots=True)
class Runs:
    """Of the program attached now; both None where the kernel does not time programs, or may not tell us."""

    time_ns: int | None = None
    count: int | None = None


Programs = Mapping[str, Runs | None]  # by hook; None: nothing is attached


def programs(pins: Pins) -> Programs:
    """Read through the pinned links; a handful of system calls."""
    return {hook: _runs(pins, hook) for hook in (*LINKS, *CALLS)}


def _runs(pins: Pins, hook: str) -> Runs | None:
    try:
        link = bpfsys.open_pinned(pins.link(hook))
    except OSError:
        return None
    try:
        _, program, _, _ = bpfsys.link_info(link)
        descriptor = bpfsys.program_by_id(program)
    except OSError:  # looking a program up takes CAP_SYS_ADMIN, which nothing else of the agent needs
        return Runs()
    finally:
        os.close(link)
    try:
        info = bpfsys.program_info(descriptor)
    finally:
        os.close(descriptor)
    # sysctl kernel.bpf_stats_enabled=1 makes the kernel time programs
    return Runs(info.run_time_ns, info.run_count) if info.run_count else Runs()
