"""gRPC is told how to wait for sockets before it can look."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from controller import polling

FIRST_LOOK = """
import os, sys
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_EXPERIMENTS"), flush=True)
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Look())
import controller.__main__
"""
SERVES = """
import controller.polling
import asyncio, grpc.aio
async def serve():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(None)
asyncio.run(serve())
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if key != polling.NAME}
    return subprocess.run(
        [sys.executable, "-c", code], env=own | environ, capture_output=True, text=True, timeout=60, check=True
    )


@pytest.mark.parametrize(("given", "seen"), [({}, polling.VALUE), ({polling.NAME: "mine"}, "mine")])
def test_grpc_finds_it_when_it_is_imported(given: dict[str, str], seen: str) -> None:
    assert run(FIRST_LOOK, **given).stdout.splitlines() == [seen]


def test_grpc_knows_the_name() -> None:
    assert "experiment" not in run(SERVES).stderr
    assert "nonsense" in run(SERVES, **{polling.NAME: "-nonsense"}).stderr
