"""What the programs cost a server: CPU per short request with and without them, in alternated rounds.

    python -m bench.overhead [--rounds N] [--seconds S]

nginx (one worker, 200-byte answers, keep-alive) in a cgroup of its own, wrk outside it, both on loopback.
The figure is the worker's own CPU time from /proc/PID/schedstat divided by the requests it answered, so
other work on the machine shows as noise of the clock speed only. Needs root, nginx-light and wrk (Debian).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from agent.kernel import bpfsys, cgroups, layout, pins, probes

PORT = 18480
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}
}}
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seconds", type=int, default=1)
    arguments = options.parse_args()
    for program in ("nginx", "wrk"):
        if not shutil.which(program):
            print(f"needs {program}: apt-get install nginx-light wrk", file=sys.stderr)
            return 1
    with server_in_cgroup() as (pid, cgroup):
        programs = loaded_for(cgroup)
        measure(pid, arguments.seconds)  # warm-up
        without, with_programs = [], []
        for _ in range(arguments.rounds):
            without.append(measure(pid, arguments.seconds))
            with attached(programs, cgroup):
                with_programs.append(measure(pid, arguments.seconds))
        report(without, with_programs, programs)
    return 0


@contextlib.contextmanager
def server_in_cgroup() -> Iterator[tuple[int, Path]]:
    cgroup = cgroups.root() / f"sonde-bench-{os.getpid()}"
    cgroup.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=PORT, body="x" * 200))
        server = subprocess.Popen(
            ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), "nginx", "-c", str(config)]
        )
        try:
            time.sleep(0.5)
            yield server.pid, cgroup
        finally:
            server.terminate()
            server.wait()
            time.sleep(0.1)
            cgroup.rmdir()


def loaded_for(cgroup: Path) -> probes.Programs:
    programs = probes.load()
    one = bytes(4)
    programs.fill_continuations(programs.map_fd("continuations"))
    bpfsys.map_update(programs.map_fd("control"), one, struct.pack("<QQ", 1, 0))
    key = struct.pack("<QII", cgroups.identity(cgroup), PORT, 0)
    bpfsys.map_update(programs.map_fd("owners"), key, struct.pack("<QII", 0, 0, 0))
    return programs


@contextlib.contextmanager
def attached(programs: probes.Programs, cgroup: Path) -> Iterator[None]:
    cgroup_fd = os.open(cgroup, os.O_RDONLY)
    links = [bpfsys.link_create(programs.fds[name], cgroup_fd, kind) for name, kind in pins.LINKS.items()]
    try:
        yield
    finally:
        for fd in (*links, cgroup_fd):
            os.close(fd)


def measure(pid: int, seconds: int) -> tuple[float, float]:
    """(CPU nanoseconds per request, requests per second)."""
    before = cpu_ns(pid)
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{PORT}/"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_ns(pid) - before
    match = re.search(r"(\d+) requests in ([\d.]+)s", output)
    assert match, output
    return used / int(match[1]), int(match[1]) / float(match[2])


def cpu_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def report(
    without: list[tuple[float, float]], with_programs: list[tuple[float, float]], programs: probes.Programs
) -> None:
    memory = bpfsys.map_memory(programs.map_fd("slots"), layout.SLOT.itemsize)
    slot = np.frombuffer(memory, dtype=layout.SLOT, count=1)[0]
    base, loaded = (statistics.median(ns for ns, _ in rounds) for rounds in (without, with_programs))
    least, least_loaded = (min(ns for ns, _ in rounds) for rounds in (without, with_programs))
    deltas = sorted(b - a for (a, _), (b, _) in zip(without, with_programs, strict=True))
    print(f"{len(without)} alternated rounds; server CPU per request, median")
    print(f"  without programs   {base:8.0f} ns   best {max(rps for _, rps in without):8.0f} req/s")
    print(f"  with programs      {loaded:8.0f} ns   best {max(rps for _, rps in with_programs):8.0f} req/s")
    print(f"  difference         {statistics.median(deltas):+8.0f} ns   pairs {deltas[0]:+.0f} .. {deltas[-1]:+.0f}")
    print(f"  of the minima      {least_loaded - least:+8.0f} ns   ({least:.0f} and {least_loaded:.0f})")
    print(f"  ratio              {loaded / base:8.3f}")
    print(f"  counted            {int(slot['completed'])} completed, {int(slot['in_flight'])} in flight")


if __name__ == "__main__":
    sys.exit(main())
