from __future__ import annotations

import numpy as np

from controller.policies.fleet import STALLED, UNREADY, Fleet, Job


def test_nothing_is_known_of_a_new_fleet_but_own_counts() -> None:
    fleet = Fleet(["a", "b"], now_s=5.0)

    assert np.isnan(fleet.in_flight).all()
    assert np.isnan(fleet.kernel_age_s).all()
    assert fleet.own_in_flight.tolist() == [0, 0]
    assert fleet.speed.tolist() == [1, 1]


def test_a_part_is_a_copy_in_the_order_asked_for() -> None:
    fleet = Fleet(["a", "b", "c"])
    fleet.in_flight[:] = [1, 2, 3]
    fleet.mean_output_tokens = 7.0
    part = fleet.part([2, 0])
    fleet.in_flight[2] = 9

    assert (part.ids, part.in_flight.tolist(), part.mean_output_tokens) == (("c", "a"), [3, 1], 7.0)


def test_a_job_has_the_same_part() -> None:
    job = Job(10.0, uncached=np.array([1.0, 2.0, 3.0]), session="s")

    assert job.part([2, 0]).uncached.tolist() == [3, 1]
    assert (job.part([0]).adapter_wait_s, job.part([0]).session) == (None, "s")


def test_serving_leaves_out_the_unready_unless_all_are() -> None:
    fleet = Fleet(["a", "b"])
    fleet.standing[:] = [STALLED, UNREADY]
    assert fleet.serving.tolist() == [True, False]

    fleet.standing[:] = UNREADY
    assert fleet.serving.tolist() == [True, True]
