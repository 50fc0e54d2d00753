"""Who has room, and who is turned away when nobody has."""

from __future__ import annotations

import math

import pytest

from controller.choosing.saturation import (
    PREFILLS,
    SONDE,
    STANDARD_CEILING,
    LimitError,
    Limits,
    Load,
    at_pace,
    ceiling,
    has_room,
    is_saturated,
    limits,
    pressure,
    queue_of,
)
from tests.controller.known import engine, kernel


@pytest.mark.parametrize(
    ("load", "room"),
    [
        (Load(0, 0.0), True),
        (Load(5, 0.8), True),  # the limits themselves are inside
        (Load(6, 0.0), False),
        (Load(0, 0.81), False),
        (Load(None, None), True),
        (Load(None, 0.9), False),
        (Load(9, None), False),
    ],
)
def test_an_endpoint_has_room_up_to_the_limits_and_where_nothing_is_known(load: Load, room: bool) -> None:
    assert has_room(load, Limits()) is room


def test_a_pool_is_saturated_when_nobody_has_room() -> None:
    full, free, unknown = Load(9, 0.9), Load(1, 0.1), Load(None, None)
    assert is_saturated([full, full], Limits())
    assert not is_saturated([full, free], Limits())
    assert not is_saturated([full, unknown], Limits())
    assert not is_saturated([], Limits())


def test_the_pressure_of_a_pool_is_that_of_its_least_pressed_endpoint() -> None:
    assert pressure([Load(20, 0.1), Load(10, 0.1)], SONDE) == 2.0
    assert pressure([Load(20, 0.1), Load(None, None)], SONDE) == 0.0
    assert pressure([Load(0, 1.0)], SONDE) == 1.0  # a full cache sheds the first, and no more
    assert pressure([], SONDE) == 0.0


def test_the_less_important_the_sooner_shed() -> None:
    levels = (-100, -10, -1)
    order = [ceiling(priority, levels) for priority in (-100, -10, -1, 0, 1)]
    assert order == sorted(order)
    assert len(set(order)) == len(order)
    assert order[0] == 1.0
    assert order[-1] == math.inf
    assert ceiling(-1, range(-100, 0)) < STANDARD_CEILING  # however many levels there are


@pytest.mark.parametrize(
    ("kernel_says", "engine_says", "unshown", "expected"),
    [
        pytest.param(None, None, 0, None, id="nothing is known"),
        pytest.param(None, engine(8, 3), 0, 3, id="the page alone"),
        pytest.param(kernel(20), engine(8, 3), 0, 12, id="the kernel knows what came since the page"),
        pytest.param(kernel(6), engine(8, 3), 0, 0, id="and what went"),
        pytest.param(kernel(20), engine(8, 3), 2, 14, id="own ones on their way count"),
        pytest.param(kernel(20, waiting=20), engine(8, 0), 0, 0, id="nobody queued: there was room"),
        pytest.param(kernel(20), engine(None, 3), 0, 3, id="a page that does not say how many run"),
        pytest.param(kernel(20, waiting=20), engine(None, None), 0, 20 - PREFILLS, id="a page that says nothing"),
        pytest.param(kernel(20, waiting=2), None, 0, 0, id="prefills are no queue"),
        pytest.param(kernel(20, waiting=PREFILLS), None, 3, 3, id="the kernel alone"),
    ],
)
def test_a_queue_is_known_by_the_freshest_signal(kernel_says, engine_says, unshown, expected) -> None:
    assert queue_of(kernel_says, engine_says, unshown) == expected


def test_the_references_thresholds_are_those_of_its_environment() -> None:
    assert limits("gie-v0.3", {}) == Limits(5, 0.8, None, 128, 0.999)
    assert limits("gie-v1", {}) == Limits(5, 0.8, 0.2)
    old = {"QUEUE_THRESHOLD_CRITICAL": "7", "KV_CACHE_THRESHOLD": "0.5", "QUEUING_THRESHOLD_LORA": "50"}
    assert limits("gie-v0.3", {**old, "LORA_AFFINITY_THRESHOLD": "1"}) == Limits(7, 0.5, None, 50, 1.0)
    new = {"SD_QUEUE_DEPTH_THRESHOLD": "9", "SD_KV_CACHE_UTIL_THRESHOLD": ".9", "SD_METRICS_STALENESS_THRESHOLD": "2s"}
    assert limits("gie-v1", new) == Limits(9, 0.9, 2.0)
    assert limits("gie-v1", old) == Limits(5, 0.8, 0.2)
    assert limits("sonde", {**old, **new}) == SONDE
    assert limits("gie-v1", {"SD_METRICS_STALENESS_THRESHOLD": "1m1.5s"}).engine_age_s == 61.5


@pytest.mark.parametrize(
    ("policy", "name", "text"),
    [
        ("gie-v0.3", "QUEUE_THRESHOLD_CRITICAL", "-1"),
        ("gie-v0.3", "KV_CACHE_THRESHOLD", "80"),
        ("gie-v1", "SD_QUEUE_DEPTH_THRESHOLD", "5.5"),
        ("gie-v1", "SD_KV_CACHE_UTIL_THRESHOLD", "nan"),
        ("gie-v1", "SD_METRICS_STALENESS_THRESHOLD", "200"),
        ("gie-v1", "SD_METRICS_STALENESS_THRESHOLD", "nans"),
    ],
)
def test_a_threshold_that_is_none_is_one_line(policy: str, name: str, text: str) -> None:
    with pytest.raises(LimitError, match=f"environment variable {name}: expected .*, got '{text}'"):
        limits(policy, {name: text})


def test_pages_that_come_rarely_are_believed_longer() -> None:
    known = limits("gie-v1", {})
    assert at_pace(known, 0.05) == known
    assert at_pace(known, 1.0).engine_age_s == 2.0
    assert at_pace(Limits(), 1.0) == Limits()


def test_a_limit_of_nothing_sheds_by_what_there_is_of_it() -> None:
    """As an EndpointPickerConfig may say it."""
    none = Limits(queue=0, kv_cache_usage=0.0)
    assert pressure([Load(0, 0.0)], none) == 0.0
    assert pressure([Load(0, 0.1)], none) == 1.0
