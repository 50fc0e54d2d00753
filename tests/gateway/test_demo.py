"""The lab as people run it, with a real Envoy: what it prints, what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.kernel import cgroups as tree
from lab.config import Kind
from lab.machine import cgroups, envoy, network, substrate
from tests.conftest import skip_or_fail

LIMIT_S = 60


@pytest.fixture
def name() -> Iterator[str]:
    """A lab of our own, gone afterwards whatever the test found."""
    lab = f"sonde-t{os.getpid()}"
    try:
        yield lab
    finally:
        substrate.clear(lab)


def need_gateway() -> None:
    if envoy.find() is None:
        skip_or_fail("gateway", "there is no Envoy")


def need_kernel(lab: str) -> None:
    choice = substrate.choose(lab, None)
    if choice.kind is not Kind.NAMESPACES:
        skip_or_fail("kernel", choice.why[0])


def run_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@contextmanager
def lab_up(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`sonde-lab up` once it says that it is up, and the lines until then."""
    command = [sys.executable, "-m", "lab", "up", *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    said = []
    try:
        for line in child.stdout:
            said.append(line.rstrip())
            if line.startswith("The lab is up"):
                break
        yield child, said
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.communicate(timeout=LIMIT_S)


def left_of(lab: str) -> list[str]:
    """What a lab of this name has on the machine: files, namespaces, cgroups, pins, processes."""
    found = [str(path) for path in Path(tempfile.gettempdir()).glob(f"{lab}-*")]
    found += network.leftovers(lab)
    found += [str(path) for path in (substrate.pin_place(lab).root,) if path.exists()]
    with suppress(tree.NoCgroup2):
        found += [str(path) for path in (cgroups.slice_of(tree.root(), lab),) if path.exists()]
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_text()
        except OSError:
            continue
        if f"/{lab}-{os.geteuid()}/" in command:
            found.append(command.replace("\0", " "))
    return found


def test_the_demo_on_loopback_answers_everything_and_leaves_nothing(name):
    need_gateway()
    done = run_lab(
        "demo", "--name", name, "--substrate", "loopback", "--duration", "1", "--hang", "0.2", "--arms", "sonde"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^Sonde +\d+ +0 +\d+ ms", done.stdout, re.MULTILINE)
    assert re.search(r"^Live page: http://127\.0\.0\.1:\d+/ui/ ", done.stdout, re.MULTILINE)
    assert left_of(name) == []


def test_sigterm_takes_the_lab_down(name):
    need_gateway()
    with lab_up("--name", name, "--substrate", "loopback") as (child, said):
        assert any("Envoy" in line for line in said)
        child.send_signal(signal.SIGTERM)
        assert child.wait(LIMIT_S) == 0
    assert left_of(name) == []


def test_a_stop_before_the_lab_is_up_takes_it_down_too(name):
    need_gateway()
    command = [sys.executable, "-m", "lab", "up", "--name", name, "--substrate", "loopback"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "... starting engines\n"
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 130
    assert said.splitlines()[-1] == "sonde-lab: stopped"
    assert left_of(name) == []


def test_a_reader_that_goes_away_ends_the_lab_without_a_traceback(name):
    need_gateway()
    command = f"{sys.executable} -m lab up --name {name} --substrate loopback 2>&1 >&3 | cat >&2"
    child = subprocess.Popen(
        ["bash", "-c", f"{{ {command}; }} 3>&1 | head -1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said, errors = child.communicate(timeout=LIMIT_S)
    assert (said, errors) == ("... starting engines\n", "")
    assert left_of(name) == []


def test_a_second_lab_of_the_same_name_is_refused(name):
    need_gateway()
    with lab_up("--name", name, "--substrate", "loopback"):
        done = run_lab("up", "--name", name, "--substrate", "loopback")
    assert done.returncode == 1
    assert "runs already" in done.stdout
    assert left_of(name) == []


def test_the_demo_on_measured_pods_keeps_its_word_and_leaves_nothing(name):
    need_gateway()
    need_kernel(name)
    done = run_lab("demo", "--name", name, "--duration", "2", "--hang", "0.6", "--arms", "sonde,round_robin")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 pods (namespaces)" in done.stdout
    assert re.search(r"^(reached|MISSED) +No request to the hung pod", done.stdout, re.MULTILINE)
    assert re.search(r"^(reached|MISSED) +TTFT p99 at least 3 times", done.stdout, re.MULTILINE)
    assert left_of(name) == []


def test_the_live_page_of_a_lab_in_namespaces_is_reached_from_outside(name):
    need_gateway()
    need_kernel(name)
    with lab_up("--name", name) as (_, said):
        (line,) = (line for line in said if line.startswith("Live page: "))
        with urllib.request.urlopen(line.split()[2], timeout=LIMIT_S) as page:
            assert b"<title>Sonde</title>" in page.read()
        with urllib.request.urlopen(line.split()[2] + "events", timeout=LIMIT_S) as events:
            seen = b""
            while b'"pod":"pod-4"' not in seen:
                seen += events.readline()
    assert left_of(name) == []


def test_what_a_killed_lab_left_is_removed_by_the_next(name):
    need_gateway()
    need_kernel(name)
    with lab_up("--name", name) as (child, _):
        child.kill()
        child.wait()
        assert f"{name}-pod-0" in left_of(name)
    with lab_up("--name", name) as (_, said):
        assert said[0].startswith("Removed what a killed lab left: ")
        assert said[-1].startswith("The lab is up")
    assert left_of(name) == []


def test_without_the_right_to_load_programs_it_says_so_and_runs_on_loopback(name):
    need_gateway()
    if os.geteuid() != 0:
        skip_or_fail("kernel", "only root can give rights away")
    bereft = ["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"]
    command = [sys.executable, "-m", "lab", "demo", "--name", name, "--duration", "1", "--hang", "0.2"]
    done = subprocess.run(
        [*bereft, *command, "--arms", "sonde"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("No measuring in the kernel here, missing: capabilities")
    assert said[1].startswith("The lab runs on loopback instead")
    assert re.match(r"NO +capabilities", said[2])
    assert "4 pods (loopback)" in done.stdout
    assert left_of(name) == []


def test_namespaces_asked_for_where_they_cannot_be_are_refused(name):
    need_gateway()
    if os.geteuid() != 0:
        skip_or_fail("kernel", "only root can give rights away")
    bereft = ["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"]
    command = [sys.executable, "-m", "lab", "up", "--name", name, "--substrate", "namespaces"]
    done = subprocess.run([*bereft, *command], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("sonde-lab: pods in namespaces need what is missing here: capabilities")
    assert left_of(name) == []


def test_no_namespace_of_the_lab_has_a_way_out(name):
    need_kernel(name)
    network_script = f"""
import subprocess
from lab.machine import network
network.build("{name}", 3)
try:
    for namespace in network.leftovers("{name}"):
        command = network.enter_command(namespace, ["cat", "/proc/net/route", "/proc/net/dev"])
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
finally:
    network.remove("{name}")
"""
    done = subprocess.run([sys.executable, "-c", network_script], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    destinations = {line.split()[1] for line in done.stdout.splitlines() if line.startswith(("pods\t", "eth0\t"))}
    assert destinations == {"0000580A"}  # 10.88.0.0, and no 00000000
    assert left_of(name) == []
