"""Other pickers' command lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import parse
from controller.forms import own_form


@pytest.mark.parametrize(
    ("typed", "own", "ignored"),
    [
        (["--pool-name", "p"], ["--pool-name", "p"], []),
        (["-pool-name=p"], ["--pool-name=p"], []),
        (["-poolName", "p", "-v", "4"], ["--pool-name", "p"], ["v"]),
        (["--grpcPort=9002", "--v=1", "-v=2"], ["--grpc-port=9002"], ["v"]),
        (["-secureServing=false"], ["--secure-serving=false"], []),
        (["--enable-pprof", "--seed", "1"], ["--seed", "1"], ["enable-pprof"]),
        (["--tracing=false"], [], ["tracing"]),
        (["--zap-encoder", "json", "--seed", "-1"], ["--seed", "-1"], ["zap-encoder"]),
        (["-h"], ["-h"], []),
        (["-v"], [], ["v"]),
        (["--nonsense", "x"], ["--nonsense", "x"], []),
    ],
)
def test_goes_forms_and_older_names_become_our_own(typed: list[str], own: list[str], ignored: list[str]) -> None:
    found = own_form(typed)

    assert (list(found.own), list(found.ignored)) == (own, ignored)


def test_the_command_line_of_release_03_starts_this_picker(tmp_path: Path) -> None:
    """As its manifest has it; pools had another group then."""
    typed = ["-poolName", "vllm-llama", "-poolNamespace", "default", "-v", "4", "-grpcPort", "9002"]
    typed += ["-grpcHealthPort", "9003", "-refreshMetricsInterval", "50ms", "-kvCacheUsagePercentageMetric", "x"]
    config = parse([*typed, "--manifests", str(tmp_path)])

    assert (config.pool_name, config.pool_group) == ("vllm-llama", "inference.networking.x-k8s.io")
    assert config.ignored == ("v", "kvCacheUsagePercentageMetric")


def test_a_group_that_is_named_counts_for_more_than_the_release(tmp_path: Path) -> None:
    config = parse(["-poolName", "p", "--pool-group", "inference.networking.k8s.io", "--manifests", str(tmp_path)])

    assert config.pool_group == "inference.networking.k8s.io"


@given(st.lists(st.text(alphabet="-=vpaolNme4 ", max_size=12)))
def test_any_arguments_have_a_form(given_arguments: list[str]) -> None:
    assert len(own_form(given_arguments).own) <= len(given_arguments)
