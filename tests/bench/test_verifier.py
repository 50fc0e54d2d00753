"""What counts as a rise of a program's size."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import verifier
from bench.verifier import Measured, Program, check, rises

RECORDED = Measured("6.18", "bcc 0.26.0", {"ingress": Program(1000, 10_000)})


def here(instructions: int, verified: int, kernel: str = "6.18") -> Measured:
    return Measured(kernel, "bcc 0.26.0", {"ingress": Program(instructions, verified)})


@pytest.mark.parametrize(
    ("now", "lines"), [((1000, 10_000), 0), ((1100, 11_000), 0), ((1101, 900), 1), ((1200, 20_000), 2)]
)
def test_more_than_a_tenth_is_a_rise(now: tuple[int, int], lines: int) -> None:
    assert len(rises(here(*now), RECORDED)) == lines


def test_the_line_says_what_rose_from_where_to_where() -> None:
    assert rises(here(900, 12_000), RECORDED) == [
        "ingress: verified instructions rose from 10000 to 12000, more than 10%"
    ]


def test_a_program_that_nobody_recorded_is_a_fault() -> None:
    assert "not recorded" in rises(Measured("6.18", "bcc 0.26.0", {"new": Program(1, 1)}), RECORDED)[0]


def test_the_check_fails_on_a_rise_and_passes_what_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(here(2000, 1), RECORDED) == 1
    assert check(here(2000, 1, kernel="5.15"), RECORDED) == 0
    assert "not compared" in capsys.readouterr().out


def test_the_record_names_every_program() -> None:
    recorded = verifier.read(Path(verifier.__file__).with_suffix(".json"))
    assert {
        "ingress",
        "egress",
        "lifecycle",
        "header",
        "chunks",
        "next",
        "frames_in",
        "frames_out",
    } <= recorded.programs.keys()
