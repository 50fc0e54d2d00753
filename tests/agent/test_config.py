"""The agent's command lines."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from agent.config import CheckConfig, LoadConfig, RunConfig, UnloadConfig, parse
from agent.forms import duration_s

RUN = ["run", "--manifests", "/m"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("1s", 1.0), ("1m30s", 90.0), ("1.5s", 1.5), (".5s", 0.5), ("250us", 0.00025), ("0", 0.0)],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "20", "ms", "20 ms", "-1s", "1s1", "1d", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no duration"):
        duration_s(text)


def test_a_flag_takes_its_value_after_a_space_or_an_equals_sign() -> None:
    spaced = parse([*RUN, "--interval", "50ms", "--port", "1"])
    joined = parse([*RUN, "--interval=50ms", "--port=1"])
    assert spaced == joined
    assert isinstance(spaced, RunConfig)
    assert (spaced.interval_s, spaced.port, spaced.metrics_port) == (pytest.approx(0.05), 1, 9432)


def test_each_command_has_a_configuration_of_its_own() -> None:
    root = Path("/sys/fs/bpf/sonde")
    assert parse(["load"]) == LoadConfig(root, None)
    assert parse(["load", "--attach-cgroup", "/c"]) == LoadConfig(root, Path("/c"))
    assert parse(["load", "--steer"]) == LoadConfig(root, None, steer=True)
    assert parse(["unload", "--pin-root", "/p"]) == UnloadConfig(Path("/p"))
    assert parse(["check", "--cgroup-root", "/c"]) == CheckConfig(root, Path("/c"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*RUN, "--interval", "0"], "shortest interval"),
        ([*RUN, "--interval", "2s"], "longest interval"),
        ([*RUN, "--interval", "fast"], "no duration"),
        ([*RUN, "--port", "65536"], "no port number"),
        ([*RUN, "--port", "-1"], "port"),
        (["run", "--namespaces", ","], "--namespaces"),
        (["walk"], "walk"),
        ([*RUN, "--weights-from", "controller"], "'controller' is no HOST:PORT"),
        ([*RUN, "--weights-from", "a:1,b:0"], "'b:0' is no HOST:PORT"),
        ([*RUN, "--balance-services", "direct=llm"], "is no NAMESPACE/SERVICE=POOL"),
        ([*RUN, "--balance-services", "x/a=p,x/b=p"], "pool x/p has two Services, a and b"),
        ([*RUN, "--inter", "1s"], "--inter"),
    ],
)
def test_a_fault_is_one_line_and_status_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_what_is_steered_is_named_by_service_and_pool() -> None:
    config = parse([*RUN, "--weights-from", "w.default.svc:9004,[fd00::1]:9004", "--balance-services", "x/a=p,y/b=q"])
    assert isinstance(config, RunConfig)
    assert config.weights_from == (("w.default.svc", 9004), ("fd00::1", 9004))
    assert config.balance_services == {("x", "p"): "a", ("y", "q"): "b"}
