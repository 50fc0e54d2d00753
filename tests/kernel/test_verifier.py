"""The recorded sizes of the programs hold: a rise above a tenth is a decision to be written down, not an accident."""

from __future__ import annotations

from bench import verifier
from tests.kernel.conversation import Bench

ELSEWHERE = 1.0  # another kernel or compiler walks otherwise; twice as far is a rise anywhere


def test_no_program_grew_by_more_than_a_tenth(bench: Bench) -> None:
    now, recorded = verifier.measure(), verifier.read()
    allowed = verifier.ALLOWED_RISE if verifier.comparable(now, recorded) else ELSEWHERE
    assert verifier.rises(now, recorded, allowed) == []
