"""`sonde-agent top`: frames as rows, and its output into pipes, from a real port."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.looking.top import Mirror, parse
from agent.proto.telemetry_pb2 import EndpointReport, EngineSignal, Frame, KernelSignal
from lab.machine import fleet as fleets
from tests.conftest import run


def report(pod: str, **kernel: int) -> EndpointReport:
    return EndpointReport(namespace="ns", pod=pod, port=8000, kernel=KernelSignal(**kernel))


def test_a_frame_becomes_rows_and_the_next_one_replaces_them() -> None:
    mirror = Mirror()
    told = [report("a", in_flight=3, waiting=1), report("b")]
    mirror.take(Frame(node="n", full=True, endpoints=told), 0.0)
    seen = mirror.seen(0.1)
    assert [(row["pod"], row["in_flight"], row["streaming"]) for row in seen.rows] == [("a", 3, 2), ("b", 0, 0)]
    assert seen.title == ["sonde-agent  node n  2 endpoints  3 in flight"]
    mirror.take(Frame(node="n", full=True, endpoints=[report("b")]), 0.2)
    assert [row["pod"] for row in mirror.seen(0.2).rows] == ["b"]


def test_a_lost_accelerator_is_an_alarm_and_says_why() -> None:
    mirror = Mirror()
    lost = report("a")
    lost.devices.add(id="GPU-1", fault="Xid 79", utilization=0.5)
    lost.devices.add(id="GPU-2", resource="nvidia.com/gpu", utilization=1.0, memory_used_bytes=7, age_us=1_500_000)
    mirror.take(Frame(node="n", full=True, endpoints=[lost, report("b")]), 0.0)
    seen = mirror.seen(0.0)
    assert [(row["fault"], row["utilization"]) for row in seen.rows] == [("GPU-1: Xid 79", 0.75), (None, None)]
    assert seen.alarms == {0}
    first, second = seen.rows[0]["devices"]
    assert (first["memory_used_bytes"], first["age_s"], first["share"]) == (None, None, None)
    assert (second["resource"], second["memory_used_bytes"], second["age_s"]) == ("nvidia.com/gpu", 7, 1.5)


def test_what_the_kernel_does_not_count_is_unknown() -> None:
    mirror = Mirror()
    told = EndpointReport(namespace="ns", pod="a", port=1, engine=EngineSignal(engine="vllm", running=2))
    mirror.take(Frame(node="n", full=True, endpoints=[told]), 0.0)
    (row,) = mirror.seen(0.0).rows
    assert (row["in_flight"], row["ttft_s"], row["running"], row["queued"]) == (None, None, 2, None)
    assert mirror.seen(0.0).title == ["sonde-agent  node n  1 endpoints  in flight unknown, 1 not measured"]


def test_the_rate_is_of_the_last_seconds_and_begins_anew_with_the_count() -> None:
    mirror = Mirror()
    for second in range(20):
        mirror.take(Frame(node="n", full=True, endpoints=[report("a", started=100 + 3 * second)]), second)
    assert mirror.seen(19).rows[0]["rate"] == pytest.approx(3.0)
    mirror.take(Frame(node="n", full=True, endpoints=[report("a", started=1)]), 20)
    assert mirror.seen(20).rows[0]["rate"] is None


def test_a_silent_pod_with_requests_is_an_alarm() -> None:
    mirror = Mirror()
    told = [report("a", in_flight=1, progress_age_us=5_000_000), report("b", in_flight=1, progress_age_us=1000)]
    mirror.take(Frame(node="n", full=True, endpoints=told), 0.0)
    assert mirror.seen(0.0).alarms == {0}


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "top", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_into_a_pipe_it_writes_plain_tables_and_json(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(2)
        fleet.pods[1].move(5, 2)
        async with fleet.serving(tmp_path):
            address = f"{fleet.nodes[0].ip}:{fleet.state_port}"
            plain = await asyncio.to_thread(top, "--address", address, "--once", "--sort", "in_flight", "--reverse")
            assert (plain.returncode, plain.stderr) == (0, "")
            assert "\x1b" not in plain.stdout
            title, head, first, second, *_ = plain.stdout.splitlines()
            assert title == "sonde-agent  node node-01  2 endpoints  5 in flight"
            assert head.split()[:2] == ["pod", "namespace"]
            assert (first.split()[0], second.split()[0]) == ("llm-002", "llm-001")
            told = json.loads((await asyncio.to_thread(top, "--address", address, "--once", "--json")).stdout)
            assert told["node"] == "node-01"
            assert [(row["pod"], row["in_flight"], row["waiting"]) for row in told["rows"]] == [
                ("llm-001", 0, 0),
                ("llm-002", 5, 2),
            ]

    run(body(), timeout_s=60, debug=False)


def test_a_reader_that_has_enough_ends_it_without_a_word(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(1)
        async with fleet.serving(tmp_path):
            address = f"{fleet.nodes[0].ip}:{fleet.state_port}"
            script = f"{sys.executable} -m agent top --address {address} --interval 0.1 --json | head -2"
            child = await asyncio.create_subprocess_exec(
                *("bash", "-o", "pipefail", "-c", script),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            said, errors = await child.communicate()
            assert (child.returncode, errors) == (0, b"")
            assert [json.loads(line)["node"] for line in said.splitlines()] == ["node-01", "node-01"]

    run(body(), timeout_s=60, debug=False)


def test_where_nothing_listens_it_is_one_line_and_status_1() -> None:
    address = f"127.0.0.1:{fleets.free_port()}"
    done = top("--address", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sonde-agent top: no agent answers at {address} (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--address", "9432"], "'9432' is not HOST:PORT"),
        (["--address", "a:0"], "'a:0' is not HOST:PORT"),
        (["--interval", "0"], "'0' is no number of seconds between 0.1 and 3600"),
        (["--interval", "nan"], "'nan' is no number of seconds"),
        (["--sort", "x"], "invalid choice: 'x'"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], flags: list[str], fault: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(flags)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert fault in said
    assert said.count("\n") == 1
