"""The same formula for one endpoint's numbers and for all endpoints' arrays: the few functions that differ. Pure.

Arithmetic, comparison and `&` mean the same for floats and for arrays; choosing between two values does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from controller.policies.fleet import Form


class Forms(NamedTuple):
    where: Callable[[Form, Form, Form], Form]
    maximum: Callable[[Form, Form], Form]
    minimum: Callable[[Form, Form], Form]


def _where(condition: bool, yes: float, no: float) -> float:
    return yes if condition else no


def _maximum(one: float, other: float) -> float:
    """NaN if either is, as numpy's."""
    return one if one >= other or one != one else other


def _minimum(one: float, other: float) -> float:
    return one if one <= other or one != one else other


NUMBERS = Forms(_where, _maximum, _minimum)
ARRAYS = Forms(np.where, np.maximum, np.minimum)
