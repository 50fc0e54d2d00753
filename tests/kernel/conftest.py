"""Real programs in this machine's kernel: the state machine alone by BPF_PROG_TEST_RUN, and whole by real sockets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import probes
from tests.conftest import skip_or_fail
from tests.kernel.conversation import Bench, Conversation
from tests.kernel.live import Node, running_node


def cgroup2_root() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    return None


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The programs in their test build: one flow per client port, a clock that tests set."""
    if os.geteuid() != 0:
        skip_or_fail("kernel", "loading programs needs root")
    root = cgroup2_root()
    if root is None:
        skip_or_fail("kernel", "no cgroup v2 is mounted")
    try:
        programs = probes.load(defines=("SONDE_TEST",))
    except probes.LoadError as error:
        skip_or_fail("kernel", f"the programs do not load: {error}")
    yield Bench.of(programs, root)


@pytest.fixture(scope="session")
def loaded(bench: Bench) -> Iterator[Node]:
    """Programs on a cgroup for all tests that only serve there: each has ports, processes and slots of its own.

    Who unloads, steers, makes noise or runs an agent has a node of its own.
    """
    with running_node("live") as node:
        yield node


@pytest.fixture(scope="module")
def node(loaded: Node) -> Iterator[Node]:
    try:
        yield loaded
    finally:
        loaded.end_processes()


_ports = itertools.count(1)


@pytest.fixture
def talk(bench: Bench) -> Conversation:
    """A connection that was just accepted on a serving port of its own."""
    return bench.converse(next(_ports))
