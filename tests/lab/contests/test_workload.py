from __future__ import annotations

import itertools
import statistics
from random import Random

import pytest

from lab.contests.workload import LENGTHS, Arrivals, Quantiles, Workload, arrivals, schedule

STEADY = Workload(rate_per_s=20, duration_s=500)


def test_the_same_seed_gives_the_same_schedule():
    assert schedule(STEADY, 7) == schedule(STEADY, 7)


def test_another_seed_gives_another_schedule():
    assert schedule(STEADY, 7) != schedule(STEADY, 8)


def test_another_rate_keeps_the_lengths_of_the_first_requests():
    slow, fast = schedule(Workload(5, 20), 7), schedule(Workload(50, 20), 7)
    assert [request.output_tokens for request in slow] == [request.output_tokens for request in fast[: len(slow)]]


@pytest.mark.parametrize("name", sorted(LENGTHS))
def test_drawn_lengths_have_the_quantiles_of_the_table(name):
    work = Workload(rate_per_s=100, duration_s=200, lengths=name, prompt_scale=1, output_scale=1)
    drawn = sorted(request.prompt_tokens for request in schedule(work, 1))
    for probability, value in LENGTHS[name].prompt.points[1:-1]:
        below = sum(length <= value for length in drawn) / len(drawn)
        assert below == pytest.approx(probability, abs=0.02)


def test_a_quantile_between_two_points_is_interpolated():
    assert Quantiles(((0, 0), (0.5, 10), (1, 30))).at(0.75) == 20


@pytest.mark.parametrize(("probability", "value"), [(0, 0), (0.5, 10), (1, 30)])
def test_a_quantile_at_a_point_is_the_points(probability, value):
    assert Quantiles(((0, 0), (0.5, 10), (1, 30))).at(probability) == value


def test_scales_shrink_lengths_and_the_minimum_holds():
    work = Workload(50, 20, prompt_scale=0.01, output_scale=0.001, min_output_tokens=3)
    requests = schedule(work, 1)
    assert max(request.prompt_tokens for request in requests) <= 141
    assert {request.output_tokens for request in requests} == {3}


def test_stream_share_is_the_share_that_streams():
    requests = schedule(Workload(100, 50, stream_share=0.25), 1)
    assert sum(request.stream for request in requests) / len(requests) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("kind", list(Arrivals))
def test_every_kind_of_arrivals_has_the_asked_mean_rate(kind):
    work = Workload(rate_per_s=20, duration_s=2000, arrivals=kind)
    assert len(list(arrivals(work, Random(3)))) == pytest.approx(40_000, rel=0.1)


@pytest.mark.parametrize("kind", list(Arrivals))
def test_arrivals_rise_and_stay_within_the_duration(kind):
    times = list(arrivals(Workload(20, 50, arrivals=kind), Random(3)))
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 50


def variation(kind: Arrivals) -> float:
    times = list(arrivals(Workload(20, 2000, arrivals=kind, variation=3), Random(3)))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return statistics.stdev(gaps) / statistics.mean(gaps)


def test_poisson_arrivals_vary_as_much_as_their_mean():
    assert variation(Arrivals.POISSON) == pytest.approx(1, abs=0.05)


def test_gamma_arrivals_vary_as_asked():
    assert variation(Arrivals.GAMMA) == pytest.approx(3, abs=0.3)


def test_bursts_vary_more_than_poisson():
    assert variation(Arrivals.ON_OFF) > 1.5
