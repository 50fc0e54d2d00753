from __future__ import annotations

import itertools
import json
import subprocess

import pytest

from lab.machine import envoy
from lab.machine.envoy import BodyMode, Gateway, Routing, bootstrap
from tests.conftest import skip_or_fail

GATEWAY = Gateway(
    pods=(("127.0.1.11", 8000), ("127.0.1.12", 8000)),
    picker=("127.0.0.1", 9002),
    round_robin_port=8081,
    least_request_port=8082,
    admin_port=9901,
)


VARIANTS = [
    pytest.param(*variant, id="-".join(str(part) for part in variant))
    for variant in itertools.product(BodyMode, Routing, (True, False))
]


@pytest.mark.parametrize(("mode", "routing", "tls"), VARIANTS)
def test_envoy_accepts_every_variant(mode, routing, tls, tmp_path):
    binary = envoy.find()
    if binary is None:
        skip_or_fail("gateway", "there is no Envoy")
    config = Gateway(
        pods=GATEWAY.pods,
        picker=GATEWAY.picker,
        round_robin_port=8081,
        least_request_port=8082,
        admin_port=9901,
        body_mode=mode,
        routing=routing,
        picker_tls=tls,
        fail_open=tls,
    )
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(bootstrap(config)))
    done = subprocess.run(
        [str(binary), "--mode", "validate", "--config-path", str(file)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def filters(config: Gateway) -> list[dict]:
    listener = bootstrap(config)["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]


def test_full_duplex_asks_for_trailers():
    mode = filters(GATEWAY)[0]["typed_config"]["processing_mode"]
    assert (mode["request_body_mode"], mode["request_trailer_mode"]) == ("FULL_DUPLEX_STREAMED", "SEND")


def test_no_response_phase_is_asked_for():
    mode = filters(GATEWAY)[0]["typed_config"]["processing_mode"]
    assert [mode[f"response_{part}_mode"] for part in ("header", "body", "trailer")] == ["SKIP", "NONE", "SKIP"]


def test_a_port_that_is_none_has_no_listener():
    config = bootstrap(Gateway(pods=GATEWAY.pods, picker=GATEWAY.picker))
    assert [listener["name"] for listener in config["static_resources"]["listeners"]] == ["sonde"]
    assert "admin" not in config


def test_without_a_sonde_port_there_is_no_picker():
    config = bootstrap(Gateway(pods=GATEWAY.pods, picker=GATEWAY.picker, sonde_port=None, round_robin_port=8081))
    assert [cluster["name"] for cluster in config["static_resources"]["clusters"]] == ["round_robin"]
