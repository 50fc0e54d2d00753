"""What `sonde-agent run` carries, and flags at their edges."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import PIN_ROOT, parse
from agent.forms import duration_s
from agent.kernel import pins


def test_run_imports_no_compiler_and_nothing_of_the_controller() -> None:
    heavy = ("bcc", "kubernetes", "msgspec", "envoy", "uvloop", "cryptography", "controller", "lab")
    script = f"import sys, agent.__main__, agent.daemon; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_pin_root_is_the_same_where_it_is_named_twice() -> None:
    assert pins.DEFAULT_ROOT == PIN_ROOT


def test_an_empty_node_name_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["run", "--manifests=/m", "--node-name="])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@given(st.text("0123456789.smhunµ -٣", max_size=8))
def test_any_text_is_a_duration_of_zero_or_more_or_refused(text: str) -> None:
    with contextlib.suppress(ArgumentTypeError):
        assert duration_s(text) >= 0
