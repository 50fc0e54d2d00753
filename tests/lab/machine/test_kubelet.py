"""A socket that says which pods have which devices, as the agent asks it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agent.devices import podresources
from agent.devices.podresources import KubeletError
from lab.machine.kubelet import main
from tests.conftest import run


async def asked(socket: Path) -> podresources.Held:
    while True:
        try:
            return await podresources.ask(socket)
        except KubeletError:
            continue


def test_the_agent_hears_what_was_given_and_the_socket_goes() -> None:
    with tempfile.TemporaryDirectory(prefix="sonde") as folder:
        socket = Path(folder) / "kubelet.sock"
        given = ["default/a=nvidia.com/gpu:GPU-0", "x/b=nvidia.com/gpu:GPU-1", "default/a=nvidia.com/gpu:GPU-2"]
        command = [sys.executable, "-m", "lab.machine.kubelet", f"--socket={socket}", *given]
        process = subprocess.Popen(command)
        try:
            held = run(asked(socket), 60)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        found = {pod: [one.id for one in devices] for pod, devices in held.items()}
        assert found == {("default", "a"): ["GPU-0", "GPU-2"], ("x", "b"): ["GPU-1"]}
        assert not socket.exists()


@pytest.mark.parametrize("text", ["a=nvidia.com/gpu:GPU-0", "default/=r:d", "default/a=nvidia.com/gpu", ""])
def test_a_device_that_is_none_is_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--socket", "/nowhere", text])
    assert ended.value.code == 2
    assert f"{text!r} is no NAMESPACE/POD=RESOURCE:ID" in capsys.readouterr().err


def test_a_socket_that_cannot_be_had_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", "/nowhere/kubelet.sock"]) == 1
    assert "lab.machine.kubelet: /nowhere/kubelet.sock: cannot listen there" in capsys.readouterr().err
