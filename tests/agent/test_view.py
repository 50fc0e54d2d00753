"""What the agent knows of its endpoints, and what of it is news."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agent.engines.families import EngineMetrics
from agent.kernel.layout import BUCKETS, bucket_index
from agent.placing.slots import Owner
from agent.recent import RENEW_NS, Counts
from agent.view import View
from tests.agent.rows import MS, NODE, S, place, pod, row, rows, view_of

ENGINE = EngineMetrics("vllm", 1, 2, 0.5)


def test_a_pod_that_nothing_counts_is_listed_as_unknown() -> None:
    view = View(NODE)
    view.place([pod("a", uid=None)], {})
    (report,) = view.frame(None, S).endpoints
    assert (report.pod, report.port) == ("a", 8000)
    assert not report.HasField("kernel")
    assert not report.HasField("engine")


def test_a_full_frame_lists_everybody_and_another_what_is_newer() -> None:
    view = view_of("a", "b")
    view.sample(rows(row(generation=1), row(generation=1)), S)
    seen = view.version
    assert [report.pod for report in view.frame(None, S).endpoints] == ["a", "b"]
    assert view.sample(rows(row(generation=1), row(generation=1, started=1, in_flight=1)), S)
    frame = view.frame(seen, S)
    assert not frame.full
    assert [(report.pod, report.kernel.in_flight) for report in frame.endpoints] == [("b", 1)]


def test_a_sum_that_moved_alone_is_no_news() -> None:
    view = view_of("a")
    view.sample(rows(row(generation=1)), S)
    assert not view.sample(rows(row(generation=1, rx_bytes=5)), 2 * S)


def test_somebody_who_comes_or_goes_makes_the_next_frame_full() -> None:
    view = view_of("a")
    view.sample(rows(row(generation=1)), S)
    seen = view.version
    assert view.place([pod("a", "u0"), pod("c", "u9")], {place("a", "u0"): Owner(0, 1)})
    assert view.frame(seen, S).full


def test_a_row_of_another_generation_is_not_the_pods() -> None:
    view = view_of("a")
    view.sample(rows(row(generation=2, in_flight=5)), S)
    assert not view.frame(None, S).endpoints[0].HasField("kernel")


def test_a_slot_that_is_given_to_another_pod_takes_no_number_along() -> None:
    view = view_of("a")
    view.sample(rows(row(generation=1, started=9)), S)
    view.place([pod("b", "u5")], {place("b", "u5"): Owner(0, 2)})
    assert not view.frame(None, S).endpoints[0].HasField("kernel")
    view.sample(rows(row(generation=2, started=1)), 2 * S)
    assert view.frame(None, 2 * S).endpoints[0].kernel.started == 1


def test_an_engines_numbers_age_while_its_page_is_not_read() -> None:
    view = view_of("a")
    assert view.take_page(place("a", "u0"), ENGINE, S)
    assert not view.take_page(place("a", "u0"), ENGINE, 2 * S)
    engine = view.frame(None, 2 * S + 30 * MS).endpoints[0].engine
    assert (engine.age_us, engine.engine, engine.running, engine.waiting, engine.kv_cache_usage) == (
        30_000, "vllm", 1, 2, 0.5,
    )  # fmt: skip


def test_a_page_of_a_pod_that_has_gone_meanwhile_is_dropped() -> None:
    assert not view_of("a").take_page(place("z"), ENGINE, S)


def test_what_an_engine_does_not_tell_is_absent() -> None:
    view = view_of("a")
    view.take_page(place("a", "u0"), EngineMetrics(None, None, None, None), S)
    engine = view.frame(None, S).endpoints[0].engine
    assert not any(engine.HasField(name) for name in ("running", "waiting", "kv_cache_usage"))


def asked_for(asked: list[int]) -> Callable[[int], Counts]:
    """Histograms to which each look adds a hundred gaps of 8 ms."""

    def histogram(slot: int) -> Counts:
        asked.append(slot)
        counts = np.zeros(BUCKETS, np.uint32)
        counts[bucket_index(8_000)] = 100 * asked.count(slot)
        return counts

    return histogram


def test_histograms_are_looked_at_only_where_there_are_new_gaps() -> None:
    view, asked = view_of("a", "b"), list[int]()
    histogram = asked_for(asked)
    for at, gaps in enumerate((0, 100, 100)):
        view.sample(rows(row(generation=1, gaps=gaps, chunks=gaps), row(generation=1)), at * RENEW_NS)
        view.renew(at * RENEW_NS, histogram)

    assert asked == [0, 1, 0]
    first, second = view.frame(None, S).endpoints
    assert first.kernel.low_gap_us == pytest.approx(8_000, rel=0.07)
    assert not second.kernel.HasField("low_gap_us")


def test_what_is_usual_is_news_when_it_changed_and_only_then() -> None:
    view, histogram = view_of("a", "b"), asked_for([])
    for at in range(1, 4):
        busy = row(generation=1, first_data=at, ttft_ns_sum=at * at * 50 * MS, rx_bytes=at)
        view.sample(rows(busy, row(generation=1)), at * RENEW_NS)
        view.renew(at * RENEW_NS, histogram)
    before = view.version
    view.sample(rows(row(generation=1, first_data=4, ttft_ns_sum=16 * 50 * MS), row(generation=1)), S)
    assert view.version == before  # nothing that is reported at once

    assert view.renew(S, histogram)
    (report,) = view.frame(before, S).endpoints
    assert (report.pod, report.kernel.usual_ttft_us) == ("a", 250_000)
    assert not view.renew(S + RENEW_NS, histogram)


def test_an_idle_pod_keeps_what_it_took_last() -> None:
    view, histogram = view_of("a"), asked_for([])
    view.sample(rows(row(generation=1)), 0)
    view.renew(0, histogram)
    view.sample(rows(row(generation=1, first_data=1, ttft_ns_sum=70 * MS, gaps=100, gap_ns_sum=900 * MS)), RENEW_NS)
    for at in range(1, 100):
        view.renew(at * RENEW_NS, histogram)
    kernel = view.frame(None, 100 * RENEW_NS).endpoints[0].kernel
    assert (kernel.usual_ttft_us, kernel.usual_gap_us) == (70_000, 9_000)
    assert kernel.low_gap_us == pytest.approx(8_000, rel=0.07)


def test_a_slot_that_went_to_another_pod_takes_nothing_usual_along() -> None:
    view, histogram = view_of("a"), asked_for([])
    view.sample(rows(row(generation=1, first_data=1, ttft_ns_sum=70 * MS)), 0)
    view.renew(0, histogram)
    view.place([pod("b", "u5")], {place("b", "u5"): Owner(0, 2)})
    view.sample(rows(row(generation=2)), RENEW_NS)
    view.renew(RENEW_NS, histogram)
    assert not view.frame(None, RENEW_NS).endpoints[0].kernel.HasField("usual_ttft_us")


def test_rows_that_stand_still_make_the_sample_younger_and_no_news() -> None:
    view = view_of("a")
    view.sample(rows(row(generation=1, in_flight=1)), S)
    seen = view.version
    view.confirm(2 * S)
    assert view.version == seen
    frame = view.frame(seen, 2 * S + 30 * MS)
    assert (frame.full, list(frame.endpoints), frame.age_us) == (False, [], 30_000)
    assert view.frame(None, 2 * S).endpoints[0].kernel.age_us == 0
