"""Asking kubelet, over a real gRPC server on a unix socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.devices import podresources
from agent.devices.podresources import ANSWER_LIMIT_BYTES, KubeletError, ask
from lab.machine.kubelet import Kubelet, pod, serving
from tests.agent.devices.kubelet import claiming
from tests.conftest import run


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sonde") as folder:  # a socket's path is short
        yield Path(folder) / "kubelet.sock"


def ids(held: podresources.Held) -> dict[str, list[str]]:
    return {name: [one.id for one in devices] for (_, name), devices in held.items()}


def test_pods_have_the_devices_of_all_their_containers_and_claims(socket: Path) -> None:
    async def body() -> None:
        both = pod("both", ("nvidia.com/gpu", "GPU-1"))
        both.containers.extend(pod("x", ("nvidia.com/gpu", "GPU-0"), ("example.com/nic", "eth0")).containers)
        kubelet = Kubelet(
            both,
            pod("none", ("example.com/nic", "eth1")),
            claiming("claim", "gpu.nvidia.com", "gpu-2"),
            claiming("cdi", "gpu.nvidia.com", cdi="nvidia.com/gpu=3"),
        )
        async with serving(kubelet, socket):
            held = await ask(socket)
        assert ids(held) == {"both": ["GPU-0", "GPU-1"], "claim": ["gpu-2"], "cdi": ["3"]}

    run(body())


def test_a_socket_that_is_made_anew_is_found(socket: Path) -> None:
    async def body() -> None:
        for name in ("first", "second"):
            async with serving(Kubelet(pod(name, ("nvidia.com/gpu", "GPU-0"))), socket):
                assert set(ids(await ask(socket))) == {name}
        with pytest.raises(KubeletError, match="is not there"):
            await ask(socket)

    run(body())


def test_a_file_that_is_no_server_is_one_line(socket: Path) -> None:
    async def body() -> None:
        socket.write_text("nobody listens")
        with pytest.raises(KubeletError, match="UNAVAILABLE") as fault:
            await ask(socket)
        assert "\n" not in str(fault.value)

    run(body())


@pytest.mark.parametrize(("size", "good"), [(ANSWER_LIMIT_BYTES - 4096, True), (ANSWER_LIMIT_BYTES + 4096, False)])
def test_an_answer_is_read_up_to_its_limit(socket: Path, size: int, good: bool) -> None:
    async def body() -> None:
        long = "x" * 65_000
        kubelet = Kubelet(*(pod(f"p{at}", ("nvidia.com/gpu", long)) for at in range(size // 65_100)))
        kubelet.pods.append(pod("last", ("nvidia.com/gpu", "y" * (size % 65_100))))
        missing = size - sum(one.ByteSize() + 4 for one in kubelet.pods)
        kubelet.pods.append(pod("pad", ("nvidia.com/gpu", "z" * max(1, missing))))
        async with serving(kubelet, socket):
            if good:
                assert len(await ask(socket)) == len(kubelet.pods)
            else:
                with pytest.raises(KubeletError, match="RESOURCE_EXHAUSTED"):
                    await ask(socket)

    run(body(), debug=False)


def test_unknown_fields_are_skipped_and_rubbish_is_one_line() -> None:
    known = pod("a", ("nvidia.com/gpu", "GPU-0")).SerializeToString()
    newer = known + b"\x22\x02\x01\x02" + b"\x9a\x06\x03abc"  # cpu_ids, packed, and a field of the future
    assert ids(podresources.read(b"\x0a" + bytes([len(newer)]) + newer)) == {"a": ["GPU-0"]}
    with pytest.raises(KubeletError, match="not understood"):
        podresources.read(b"\xff\xff\xff")
