"""The recorded sizes of the programs hold: a rise above a tenth is a decision to be written down, not an accident."""

from __future__ import annotations

import pytest

from bench import verifier
from tests.kernel.conversation import Bench


def test_no_program_grew_by_more_than_a_tenth(bench: Bench) -> None:
    now, recorded = verifier.measure(), verifier.read()
    if not verifier.comparable(now, recorded):
        pytest.skip(f"recorded on {recorded.kernel}, {recorded.compiler}: not comparable")
    assert verifier.rises(now, recorded) == []
