"""How long the programs are and how much of them the kernel's verifier walks, against what was recorded.

    python -m bench.verifier            prints the table
    python -m bench.verifier --check    ends with status 1 where a number rose by more than a tenth
    python -m bench.verifier --record   writes bench/verifier.json

Numbers of another kernel or another compiler are not comparable: then --check compares nothing and says so. The walk is
what a kernel bounds (a million instructions) and what loading takes its time for. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.kernel import bpfsys, probes

RECORD = Path(__file__).with_suffix(".json")
ALLOWED_RISE = 0.1


@dataclass(frozen=True, slots=True)
class Program:
    instructions: int
    verified: int


@dataclass(frozen=True, slots=True)
class Measured:
    kernel: str  # major.minor
    compiler: str
    programs: dict[str, Program]


def measure() -> Measured:
    """Loads the programs as production does, without attaching any. Raises probes.LoadError."""
    loaded = probes.load()
    from bcc import __version__ as bcc_version

    found = {name: _program(loaded, probes.PROGRAMS[name][0], fd) for name, fd in loaded.fds.items()}
    for name, function in probes.CALLS.items():
        try:
            fd = loaded.tracing(name)
        except OSError:
            continue
        found[name] = _program(loaded, function, fd)
        os.close(fd)
    kernel = re.match(r"\d+\.\d+", platform.release())
    return Measured(kernel[0] if kernel else platform.release(), f"bcc {bcc_version}", found)


def _program(loaded: probes.Programs, function: str, fd: int) -> Program:
    code = loaded.module.dump_func(function.encode())
    return Program(len(code) // 8, bpfsys.program_info(fd).verified_instructions)


def rises(now: Measured, recorded: Measured, allowed: float = ALLOWED_RISE) -> list[str]:
    """One line for each number that rose by more than is allowed, and for each program that nobody recorded."""
    lines = []
    for name, program in now.programs.items():
        before = recorded.programs.get(name)
        if before is None:
            lines.append(f"{name} is not recorded: run python -m bench.verifier --record")
            continue
        for what, old, new in (
            ("instructions", before.instructions, program.instructions),
            ("verified instructions", before.verified, program.verified),
        ):
            if new > old * (1 + allowed):
                lines.append(f"{name}: {what} rose from {old} to {new}, more than {allowed:.0%}")
    return lines


def read(path: Path = RECORD) -> Measured:
    raw = json.loads(path.read_text())
    programs = {name: Program(**numbers) for name, numbers in raw["programs"].items()}
    return Measured(raw["kernel"], raw["compiler"], programs)


def comparable(now: Measured, recorded: Measured) -> bool:
    return (now.kernel, now.compiler) == (recorded.kernel, recorded.compiler)


def check(now: Measured, recorded: Measured) -> int:
    if not comparable(now, recorded):
        print(f"not compared: recorded on {recorded.kernel}, {recorded.compiler}; here {now.kernel}, {now.compiler}")
        return 0
    lines = rises(now, recorded)
    for line in lines:
        print(line)
    return 1 if lines else 0


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true")
    options.add_argument("--record", action="store_true")
    arguments = options.parse_args()
    try:
        now = measure()
    except probes.LoadError as error:
        print(f"bench.verifier: {error}", file=sys.stderr)
        return 1
    print(f"kernel {now.kernel}, {now.compiler}")
    for name, program in now.programs.items():
        print(f"  {name:<12} {program.instructions:6d} instructions, {program.verified:8d} verified")
    if arguments.record:
        RECORD.write_text(json.dumps(asdict(now), indent=1) + "\n")
    return check(now, read()) if arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
