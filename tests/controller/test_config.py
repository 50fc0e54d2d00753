"""The controller's command line, as users of the field's pickers type it."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config import parse


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--pool-name", "llm", "--manifests", str(folder), *more]


def test_the_defaults_are_the_fields(tmp_path: Path) -> None:
    config = parse(arguments(tmp_path))
    assert (config.grpc_port, config.grpc_health_port, config.metrics_port) == (9002, 9003, 9090)
    assert (config.pool_namespace, config.pool_group) == ("default", "inference.networking.k8s.io")
    assert (config.secure_serving, config.cert_path, config.policy) == (True, None, "sonde")
    assert config.refresh_metrics_interval_s == pytest.approx(0.05)
    assert (config.max_endpoints, config.conformance_hooks, config.cert_reload) == (1, False, True)
    assert (config.drain_delay_s, config.drain_timeout_s) == (5, 30)
    assert config.weights_port == 0
    assert (config.slo_ttft_s, config.slo_tpot_s, config.explain_sample) == (5, 0, 0)


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [("--secure-serving=false", False), ("--secure-serving=true", True), ("--secure-serving", True)],
)
def test_switches_take_a_value_or_none_as_in_go(tmp_path: Path, flag: str, wanted: bool) -> None:
    assert parse(arguments(tmp_path, flag)).secure_serving is wanted


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--grpc-port", "70000"], "no port number"),
        (["--grpc-port", "9003"], "must differ"),
        (["--weights-port", "9090"], "must differ"),
        (["--weights-port", "-1"], "no port number"),
        (["--refresh-metrics-interval", "50"], "no duration"),
        (["--refresh-metrics-interval", "1us"], "shortest"),
        (["--secure-serving=maybe"], "neither true nor false"),
        (["--policy", "best"], "best"),
        (["--pool-name", ""], "--pool-name"),
        (["--manifests", "/nonexistent"], "/nonexistent is no folder"),
        (["--config-file", "/nonexistent"], "/nonexistent is no file"),
        (["--cert-path", "/nonexistent"], "tls.crt"),
        (["--cert-path", "/" + "x" * 300], "File name too long"),
        (["--max-endpoints", "0"], "no number 1..16"),
        (["--request-body-mode", "none"], "invalid choice"),
        (["--drain-delay", "5"], "no duration"),
        (["--slo-ttft", "5"], "no duration"),
        (["--explain-sample", "-1"], "no whole number"),
        (["--bind", "nonsense"], "no IP address"),
        (["--body-memory", "5"], "neither auto nor a size"),
        (["--model-server-metrics-path", "metrics"], "no path such as /metrics"),
        (["--model-server-metrics-scheme", "ftp"], "invalid choice"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_fault_is_one_line_and_status_2(
    tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments(tmp_path, *more))
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
