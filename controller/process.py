"""What this process costs its machine, under the names every Prometheus client library uses. Reads /proc/self only."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from agent.exposition import Family, counter, gauge, written

CPU = counter("process_cpu_seconds_total", "Processor time the process has used.")
MEMORY = gauge("process_resident_memory_bytes", "Memory of the process in RAM.")
STARTED = gauge("process_start_time_seconds", "When the process started, in seconds since 1970.")
OPEN_FILES = gauge("process_open_fds", "Open file descriptors: connections, mostly.")
MAX_FILES = gauge("process_max_fds", "File descriptors the process may have open.")

FAMILIES: tuple[Family, ...] = (CPU, MEMORY, STARTED, OPEN_FILES, MAX_FILES)


def process_metrics() -> Iterator[str]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    for family, value in (
        (CPU, time.process_time()),
        (MEMORY, pages * os.sysconf("SC_PAGESIZE")),
        (STARTED, _started_s()),
        (OPEN_FILES, len(os.listdir("/proc/self/fd"))),
        (MAX_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ):
        yield written(family, [((), value)])


def _started_s() -> float:
    """Field 22 of the stat file counts clock ticks since the machine's boot."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    since_boot_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot_s
