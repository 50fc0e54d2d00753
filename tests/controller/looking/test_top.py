"""`sonde-controller top`: documents as rows, and its output into pipes, from a real controller."""

from __future__ import annotations

import asyncio
import http.server
import json
import subprocess
import sys
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec

from controller.choosing.picker import Picker
from controller.endpoints.table import Table
from controller.looking.document import SECONDS, Summary, document
from controller.looking.top import seen
from controller.model import Device, FrameReceived, Request
from lab.machine import fleet as fleets
from tests.conftest import run
from tests.controller.known import frame, kernel, pod, report, table


def shown(made: Table, picker: Picker, now: float, known: bool = True):
    summary = Summary("default", "p", known, "sonde", picker.turn, 0, 1)
    told = msgspec.json.decode(msgspec.json.encode(document(made, picker.ranks(now), picker.last, summary, now)))
    return seen(told, now, deque())


def test_a_document_becomes_rows_a_title_and_the_last_pick() -> None:
    made = table(pod("a"), pod("b", ready=False))
    made.apply(frame({"a": kernel(2, waiting=1), "b": kernel(0)}, full=True), 0.0)
    picker = Picker(made, rng=Random(1))
    picker.pick(Request("/", "m", None), 0.1)
    came = shown(made, picker, 0.2)
    assert came.title[0] == (
        "sonde-controller  pool default/p  rule sonde (price in requests)  1 of 2 ready  2 in flight"
        "  1 of 1 agents live  1 picks"
    )
    assert came.title[1].startswith("last pick 0.1 s ago: a for ")
    assert [(row["pod"], row["in_flight"], row["streaming"], row["state"]) for row in came.rows] == [
        ("a", 2, 1, ""),
        ("b", 0, 0, "unready"),
    ]
    assert came.alarms == {1}


def test_prices_in_seconds_are_read_as_times() -> None:
    made = table(pod("a"), pod("b"))
    made.apply(frame({"a": kernel(2), "b": kernel(0)}, full=True), 0.0)
    picker = Picker(made, rng=Random(1))
    picker.pick(Request("/", "m", None), 0.0)
    in_seconds = Summary("default", "p", True, "sonde", 1, 0, 1, SECONDS)
    told = msgspec.json.decode(msgspec.json.encode(document(made, picker.ranks(0.0), picker.last, in_seconds, 0.0)))
    told["picks"][0]["rank"], told["picks"][0]["alternatives"][0]["rank"] = 0.0214, 1.5
    came = seen(told, 0.0, deque())
    assert came.title[1] == "last pick 0.0 s ago: b for 21 ms (tie), not a for 1500 ms"
    assert "(price in s)" in came.title[0]


def test_what_is_stale_has_an_age_and_no_numbers() -> None:
    made = table(pod("a"))
    made.apply(frame({"a": kernel(2)}, full=True), 0.0)
    came = shown(made, Picker(made), 20.0, known=False)
    (row,) = came.rows
    assert (row["in_flight"], row["ttft_s"], row["stale_s"]) == (None, None, 20.0)
    assert "IS NOT THERE" in came.title[0]
    assert came.title[0].endswith("0 picks  node-1 silent 20 s")


def test_accelerators_are_a_mean_in_the_table_and_each_of_them_in_json() -> None:
    made = table(pod("a"), pod("b"))
    gpu = Device("GPU-1", "nvidia.com/gpu", "gpu", utilization=0.5, memory_used_bytes=7, at_s=1)
    devices = (gpu, replace(gpu, id="GPU-2", utilization=1.0))
    made.apply(FrameReceived("node-1", True, [report("a", kernel(0), devices=devices), report("b", kernel(0))]), 2.0)
    first, second = shown(made, Picker(made), 2.0).rows
    assert (first["utilization"], second["utilization"]) == (0.75, None)
    assert [(one["id"], one["memory_used_bytes"], one["age_s"]) for one in first["devices"]] == [
        ("GPU-1", 7, 1.0),
        ("GPU-2", 7, 1.0),
    ]


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller", "top", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_into_a_pipe_it_writes_plain_tables_and_json(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = fleets.fleet(2)
        async with fleet.serving(tmp_path), fleets.controller(tmp_path, fleet, ui=False) as at:
            address = f"127.0.0.1:{at.port}"
            told = {}
            while len(told.get("rows", [])) < 2 or told["rows"][1]["in_flight"] is None:
                told = json.loads((await asyncio.to_thread(top, "--address", address, "--once", "--json")).stdout)
            assert [row["pod"] for row in told["rows"]] == ["llm-001", "llm-002"]
            assert told["summary"]["pool"] == "lab"
            plain = await asyncio.to_thread(top, "--address", address, "--once", "--filter", "002")
            assert (plain.returncode, plain.stderr) == (0, "")
            title, last, head, row, *_ = plain.stdout.splitlines()
            assert title.startswith("sonde-controller  pool default/lab")
            assert last == "no pick yet"
            assert (head.split()[0], row.split()[0]) == ("pod↑", "llm-002")

    run(body(), timeout_s=80, debug=False)


def test_where_nothing_listens_it_is_one_line_and_status_1() -> None:
    address = f"127.0.0.1:{fleets.free_port()}"
    done = top("--address", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sonde-controller top: no controller answers at {address} (")
    assert done.stderr.count("\n") == 1


def test_what_is_no_controller_is_said_to_be_none() -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"hello": "world"}')

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        done = top("--address", f"127.0.0.1:{server.server_port}", "--once")
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    assert "is no controller's metrics port ('summary')" in done.stderr
