"""The commands where they end before anything is started."""

from __future__ import annotations

import pytest

from lab.__main__ import main


def test_a_bad_flag_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--arms", "sonde,rr"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "sonde-lab demo: argument --arms: got 'rr', expected some of sonde,round_robin,least_request; "
        "see sonde-lab demo --help\n"
    )


def test_without_envoy_it_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setenv("SONDE_ENVOY", "/nonexistent")
    assert main(["up", "--name", "sonde-none", "--substrate", "loopback"]) == 1
    assert capsys.readouterr().out == (
        "sonde-lab: no Envoy found: run 'make setup', or name its binary in $SONDE_ENVOY\n"
    )
