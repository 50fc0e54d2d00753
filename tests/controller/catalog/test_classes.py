from __future__ import annotations

import pytest

from controller.catalog.classes import CRITICAL, Class, class_of, priority_of


@pytest.mark.parametrize("criticality", list(Class))
def test_a_criticality_is_a_priority_and_back(criticality: Class) -> None:
    assert class_of(priority_of(criticality.value)) is criticality


def test_no_criticality_is_standard_and_negative_priorities_may_be_shed() -> None:
    assert class_of(priority_of(None)) is Class.STANDARD
    assert [class_of(priority) for priority in (-100, -1, 0, 1, 2_000_000_000)] == [
        Class.SHEDDABLE,
        Class.SHEDDABLE,
        Class.STANDARD,
        Class.CRITICAL,
        Class.CRITICAL,
    ]
    assert CRITICAL > 0
