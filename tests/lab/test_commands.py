"""The commands where they end before anything is started."""

from __future__ import annotations

import pytest

from lab.__main__ import main
from lab.contests import results


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["steer", "--arms", "steer,best"], "argument --arms: got 'best', expected some of kube-proxy,equal,steer"),
        (["steer", "--pods", "2"], "argument --pods: 2 is not between 3 and 30"),
        (["load", "--part", "4/3"], "argument --part: '4/3' is not such as 1/3, the first of three"),
    ],
)
def test_a_bad_value_is_one_line(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_parts_of_a_load_are_all_of_it(tmp_path, capsys):
    common = ["load", "--rate", "50", "--duration", "0.5", "--port", "1"]
    files = [tmp_path / part for part in "123"]
    for at, file in enumerate(files):
        main([*common, "--part", f"{at + 1}/3", "--out", str(file)])
    main([*common, "--out", str(tmp_path / "whole")])
    parts = [one.request for file in files for one in results.read(file)]
    assert sorted(parts, key=lambda request: request.index) == [one.request for one in results.read(tmp_path / "whole")]
    assert {one.error for file in files for one in results.read(file)} != {None}  # nobody listens there
