"""Which capability is needed for what: every command of the agent with all of a set, and with all but one.

python -m bench.capabilities, as root. Each command runs as uid 0 with a bounding set, as a container's does that drops
ALL and adds some. Prints the table of docs/security.md. Makes a cgroup and pins of its own and removes them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.kernel import cgroups, pins
from lab.machine import manifests
from lab.machine.manifests import LabPod

WANTED = ("bpf", "net_admin", "perfmon")
LIMIT_S = 90.0
STARTED = "running node="
UNABLE = "tables cannot be kept"


def limited(capabilities: Sequence[str], command: Sequence[str]) -> list[str]:
    """A command as a container runs it: root, these capabilities and no way to others."""
    bounding = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    setpriv = ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounding}"]
    return [*setpriv, sys.executable, "-m", "agent", *command]


def load(where: Sequence[str], cgroup: Path, capabilities: Sequence[str], *more: str) -> str:
    command = limited(capabilities, ["load", *where, "--attach-cgroup", str(cgroup), *more])
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return "works" if done.returncode == 0 else _last(done.stdout + done.stderr)


def unload(where: Sequence[str], capabilities: Sequence[str]) -> str:
    command = limited(capabilities, ["unload", *where])
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return "works" if done.returncode == 0 else _last(done.stdout + done.stderr)


def run(where: Sequence[str], cgroup: Path, capabilities: Sequence[str], objects: Sequence[manifests.Json] = ()) -> str:
    """Whether the agent starts, stays for some seconds and can write its tables."""
    with tempfile.TemporaryDirectory() as folder:
        manifests.write(Path(folder), objects)
        flags = ["--manifests", folder, "--cgroup-root", str(cgroup), "--bind", "127.0.0.1", "--node-name", "n"]
        ports = ["--port", "0", "--metrics-port", "0", "--health-port", "0"]
        command = limited(capabilities, ["run", *where, *flags, *ports])
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            time.sleep(3)
            alive = process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    unable = next((line for line in said.splitlines() if UNABLE in line), "")
    return "works" if alive and STARTED in said and not unable else _last(unable or said)


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return f"fails: {lines[-1][-100:]}" if lines else "fails without a word"


def steered() -> list[manifests.Json]:
    """A pool that names its Service, so that there is a table to write."""
    pod = LabPod("pod-1", "00000000-0000-4000-8000-000000000001", "10.88.9.1", "")
    return [manifests.pool(8000, "lab"), manifests.service("lab", "10.96.9.9", 80, 8000), manifests.pod(pod, "n", 8000)]


@contextlib.contextmanager
def ground() -> Iterator[tuple[list[str], Path]]:
    name = f"sonde-caps-{os.getpid()}"
    place = pins.Pins(Path("/sys/fs/bpf") / name)
    cgroup = cgroups.root() / name
    cgroup.mkdir()
    try:
        yield ["--pin-root", str(place.root)], cgroup
    finally:
        pins.remove(place)
        place.lock.unlink(missing_ok=True)
        cgroup.rmdir()


def steering(where: Sequence[str], cgroup: Path) -> Iterator[tuple[str, Sequence[str], str]]:
    """The same with the programs that steer, each time on a ground where nothing is attached."""
    for held in (WANTED, *(tuple(name for name in WANTED if name != without) for without in WANTED)):
        yield "`load --steer`", held, load(where, cgroup, held, "--steer")
        unload(where, ())
    load(where, cgroup, WANTED, "--steer")
    for least in (("bpf",), ()):
        yield "`run`, steering", least, run(where, cgroup, least, steered())
    yield "`unload`", (), unload(where, ())


def main() -> int:
    if os.geteuid() != 0:
        sys.stderr.write("bench.capabilities: needs root, to have capabilities to drop\n")
        return 1
    sysctl = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
    print(f"kernel {os.uname().release}, kernel.unprivileged_bpf_disabled={sysctl.read_text().strip()}\n")
    print("| command | capabilities | |\n|---|---|---|")
    with ground() as (where, cgroup):
        for held in (WANTED, *(tuple(name for name in WANTED if name != without) for without in WANTED), ()):
            print(f"| `load` | {' '.join(held) or 'none'} | {load(where, cgroup, held)} |", flush=True)
        load(where, cgroup, WANTED)
        print(f"| `load` again | {' '.join(WANTED)} | {load(where, cgroup, WANTED)} |", flush=True)
        for held in (("bpf",), ()):
            print(f"| `run` | {' '.join(held) or 'none'} | {run(where, cgroup, held)} |", flush=True)
        print(f"| `unload` | none | {unload(where, ())} |", flush=True)
        for command, kept, came in steering(where, cgroup):
            print(f"| {command} | {' '.join(kept) or 'none'} | {came} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
