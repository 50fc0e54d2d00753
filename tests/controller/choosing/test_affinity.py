"""What a request is to each endpoint, and what the picker makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from controller.choosing.picker import Picker
from controller.endpoints.table import Table
from controller.model import ClusterChanged, EngineScraped, FrameReceived, Reason, Request, Resolved
from controller.policies.registry import POLICIES
from controller.requests.paths import Kind
from tests.controller.known import cluster, engine, frame, kernel, pod, report, table

SYSTEM = "You are a careful assistant. " * 400


def ask(text: str, **changes: object) -> Request:
    body = json.dumps({"model": "m", "prompt": text}).encode()
    return replace(Request("/v1/completions", "m", None, Kind.COMPLETIONS, body=body), **changes)


def busy(*names: str) -> Table:
    made = table(*(pod(name) for name in names))
    made.apply(frame({name: kernel(4) for name in names}, full=True, at=0.0), 0.0)
    return made


def picked(picker: Picker, request: Request, now: float = 0.0) -> str:
    pick = picker.pick(request, now)
    assert pick is not None
    pick.end(now)
    return pick.row.endpoint.pod


def test_a_prompt_goes_where_its_beginning_is_cached() -> None:
    picker = Picker(busy("a", "b", "c", "d"), rng=Random(1))
    first = picked(picker, ask(SYSTEM + "first"))
    again = [picked(picker, ask(f"{SYSTEM}{number}")) for number in range(6)]

    assert set(again) == {first}
    row = next(row for row in picker.table.rows if row.endpoint.pod == first)
    assert row.picks[Reason.PREFIX] == 6


def test_but_not_into_a_queue_that_takes_longer() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    first = picked(picker, ask(SYSTEM + "first"))
    made.apply(frame({first: kernel(40, at=0.01, waiting=36, started=40)}, at=0.01), 0.01)

    assert picked(picker, ask(SYSTEM + "second"), 0.01) != first


def test_another_pod_at_the_same_address_has_nothing_cached() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    first = picked(picker, ask(SYSTEM))
    pods = [pod(name, uid="another" if name == first else f"uid-{name}") for name in "ab"]
    made.apply(ClusterChanged(cluster(*pods)), 0.0)

    job = picker.affinity.job(ask(SYSTEM), made.fleet, made.rows)
    assert job.uncached is None


def test_models_do_not_share_what_is_cached() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    picked(picker, ask(SYSTEM, resolved=Resolved("m", "tuned", None, 0, "")))

    assert picker.affinity.job(ask(SYSTEM), made.fleet, made.rows).uncached is None
    assert (
        picker.affinity.job(ask(SYSTEM, resolved=Resolved("x", "tuned", None, 0, "")), made.fleet, made.rows).uncached
        is not None
    )


def test_an_adapter_stays_where_it_is_loaded() -> None:
    picker = Picker(busy("a", "b", "c"), rng=Random(1))
    request = ask("hi", resolved=Resolved("m", "tuned", "tuned", 0, ""))

    assert len({picked(picker, request) for _ in range(8)}) == 1


def test_an_engine_tells_how_many_adapters_it_can_hold() -> None:
    made = table(pod("a"))
    told = replace(engine(1, 0), max_adapters=1)
    made.apply(FrameReceived("node-1", True, [report("a", kernel(1), told)]), 0.0)
    picker = Picker(made, rng=Random(1))
    for name in ("x", "y"):
        picked(picker, ask("hi", resolved=Resolved("m", name, name, 0, "")))

    assert picker.affinity.adapters.wait_s("x", 0.0)[0] > 0
    assert picker.affinity.adapters.wait_s("y", 0.0)[0] == 0


def test_the_time_of_a_load_is_learned_from_the_first_byte_of_a_first_use() -> None:
    made = busy("a")
    picker = Picker(made, rng=Random(1))
    adapters = picker.affinity.adapters
    before_s = adapters.load_s
    for number in range(12):
        now = 10.0 * number
        made.apply(frame({"a": kernel(0, at=now, started=number)}, full=True, at=now), now)
        request = ask("hi", resolved=Resolved("m", f"lora-{number}", f"lora-{number}", 0, ""))
        assert picker.pick(request, now) is not None
        made.apply(frame({"a": kernel(1, at=now + 0.01, waiting=1, started=number + 1)}, at=now + 0.01), now + 0.01)
        made.apply(frame({"a": kernel(0, at=now + 2.0, started=number + 1)}, at=now + 2.0), now + 2.0)
    picker.pick(ask("hi", resolved=Resolved("m", "x", "x", 0, "")), 200.0)

    assert before_s < 1.0 < adapters.load_s < 2.0


def test_an_adapter_that_only_waits_in_an_engine_is_not_loaded_there() -> None:
    made = table(pod("a"), pod("b"))
    pages = {"a": replace(engine(1, 1), waiting_adapters=("x",)), "b": replace(engine(1, 1), running_adapters=("x",))}
    reports = [report(name, kernel(1), page) for name, page in pages.items()]
    made.apply(FrameReceived("node-1", True, reports), 0.0)

    job = Picker(made).affinity.job(ask("hi", resolved=Resolved("m", "x", "x", 0, "")), made.fleet, made.rows)
    assert job.adapter_wait_s is not None
    assert (job.adapter_wait_s > 0.0).tolist() == [True, False]


def test_a_long_prompt_goes_past_a_queue_and_a_short_one_counts_little() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    long = picker.pick(ask("word " * 40_000), 0.0)
    assert long is not None
    others = [picker.pick(ask("hi"), 0.0) for _ in range(5)]

    assert all(other is not None and other.row is not long.row for other in others)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_runs_live(name: str) -> None:
    made = busy("a", "b", "c")
    picker = Picker(made, POLICIES[name], Random(1))
    picks = [picker.pick(ask(f"{SYSTEM}{number % 3}"), number * 0.01) for number in range(30)]

    assert all(picks)
    for pick in picks:
        assert pick is not None
        pick.end(0.4)
    assert picker.turn == 30
    assert picker.ranks(0.5)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_policy_picks_what_is_not_ready(name: str) -> None:
    made = table(pod("a", ready=False), pod("b"), pod("c", terminating=True))
    picker = Picker(made, POLICIES[name], Random(1))

    assert {picked(picker, ask("hi")) for _ in range(20)} == {"b"}


def test_a_subset_of_all_is_no_subset_and_costs_nothing() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    request = ask("hi", subset=("10.0.0.1", "10.0.0.2"))
    picked(picker, request)
    few = picker.memory.few

    picked(picker, request, 0.001)
    assert picker.memory.few is few


def test_what_people_look_at_does_not_disturb_the_next_pick() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    picked(picker, ask("hi"))
    made.reserve(made.rows[0], 0.0, 9e5, 9e5)
    assert picker.ranks(0.0)[0] > picker.ranks(0.0)[1]

    assert picked(picker, ask("hi")) == "b"


def test_four_thousand_endpoints_some_of_them_twice() -> None:
    names = [f"p{number}" for number in range(4000)]
    pods = [
        pod(name, f"10.{number // 65536}.{number // 250 % 250}.{number % 250 + 1}") for number, name in enumerate(names)
    ]
    made = table(*pods, *(pod(f"old{number}", pods[number].ip, ready=False) for number in range(100)))
    picker = Picker(made, rng=Random(1))

    assert len(made.rows) == 4000
    assert len({picked(picker, ask("hi")) for _ in range(50)}) > 40


def test_a_picker_learns_how_many_are_answered_whole() -> None:
    made = busy("a", "b")
    picker = Picker(made, rng=Random(1))
    for _ in range(200):
        picked(picker, ask("hi"))
    assert made.fleet.whole_share == pytest.approx(1.0, abs=0.05)

    stream = json.dumps({"model": "m", "prompt": "hi", "stream": True}).encode()
    for _ in range(200):
        picked(picker, ask("hi", body=stream))
    assert made.fleet.whole_share == pytest.approx(0.0, abs=0.05)


def test_an_adapter_that_a_page_names_is_loaded_there_whoever_sent_it() -> None:
    picker = Picker(busy("a", "b", "c"), rng=Random(1))
    tuned = ask("short", resolved=Resolved("x", "tuned", "tuned", 0, ""))
    signal = replace(engine(4, 0), running_adapters=("tuned",), max_adapters=4)
    picker.table.apply(EngineScraped("10.0.0.2:8000", signal), 0.0)

    assert {picked(picker, tuned, 0.001 * number) for number in range(8)} == {"b"}
