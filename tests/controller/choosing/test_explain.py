from __future__ import annotations

import json
import logging
from random import Random

import pytest

from controller.choosing.explain import KEPT, Explainer
from controller.choosing.picker import Picker
from controller.model import Request
from controller.policies.registry import POLICIES
from tests.controller.known import frame, kernel, pod, table

ASK = Request("/v1/completions", "m", None)


def explaining(every: int, policy: str = "sonde") -> Picker:
    made = table(*(pod(name) for name in "abc"))
    made.apply(frame({"a": kernel(9, waiting=5), "b": kernel(2), "c": kernel(30)}, full=True, at=0.0), 0.0)
    return Picker(made, POLICIES[policy], Random(1), explainer=Explainer(every))


def test_each_nth_pick_says_what_every_endpoint_would_have_cost(caplog: pytest.LogCaptureFixture) -> None:
    picker = explaining(2)
    with caplog.at_level(logging.INFO, "controller.choosing.explain"):
        for _ in range(4):
            picker.pick(ASK, 0.01)

    told = picker.explainer.latest()
    assert len(told) == 2
    assert [json.loads(record.getMessage().removeprefix("pick ")) for record in caplog.records] == told[::-1]
    first = told[-1]
    assert (first["chosen"], first["reason"], first["candidates"]) == ("10.0.0.2:8000", "cheapest", 3)
    assert [end["endpoint"] for end in first["endpoints"]] == ["10.0.0.2:8000", "10.0.0.3:8000", "10.0.0.1:8000"]
    for end in first["endpoints"]:
        parts = ("queue_s", "prompt_s", "step_s", "decode_s", "others_s", "adapter_s")
        assert end["price_s"] == pytest.approx(sum(end[part] for part in parts), rel=0.05)
    assert first["endpoints"][2]["queue_s"] > first["endpoints"][0]["queue_s"]


def test_other_rules_say_what_they_saw() -> None:
    picker = explaining(1, "least-request")
    picker.pick(ASK, 0.01)
    (told,) = picker.explainer.latest()

    assert (told["reason"], told["endpoints"][0]["endpoint"]) == ("rule", told["chosen"])
    assert "price_s" not in told["endpoints"][0]


def test_what_speaks_against_an_endpoint_is_told_apart_from_its_price() -> None:
    made = table(pod("a"), pod("b", ready=False))
    picker = Picker(made, rng=Random(1), explainer=Explainer(1))
    picker.pick(ASK, 0.0)

    assert [end["against"] for end in picker.explainer.latest()[0]["endpoints"]] == [[], ["unready"]]
    assert picker.explainer.latest()[0]["endpoints"][1]["price_s"] < 1e3


def test_unless_asked_nothing_is_explained_and_of_many_the_last_are_kept() -> None:
    silent, loud = explaining(0), explaining(1)
    for _ in range(KEPT + 5):
        silent.pick(ASK, 0.01)
        loud.pick(ASK, 0.01)

    assert silent.explainer.latest() == []
    assert len(loud.explainer.latest()) == KEPT
    json.dumps(loud.explainer.latest(), allow_nan=False)
