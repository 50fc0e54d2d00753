"""Mutual TLS on the stream, over real gRPC: who gets in, who does not, and certificates that change meanwhile."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import grpc
import grpc.aio
import pytest

from agent import stream
from agent.identity import keeper, tls
from agent.identity.certificates import Authority, make_authority, make_identity
from agent.identity.trust import Trust
from agent.proto.telemetry_pb2 import Frame, WatchRequest
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from controller.model import Event, FrameReceived
from controller.sources.agents import Agents
from tests.agent.rows import view_of
from tests.conftest import run

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    keeper.write_folders(tmp_path, NOW)
    return tmp_path


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[int]:
    telemetry = stream.Telemetry(view_of("a"), controllers_only=True)
    credentials = tls.server_credentials(tls.Files(folder))
    server, port = stream.make_server(telemetry, "127.0.0.1", 0, credentials)
    await server.start()
    try:
        yield port
    finally:
        telemetry.close()
        await server.stop(1)


async def first_frame(port: int, identity: tls.Identity | None) -> Frame:
    if identity is None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    else:
        credentials = tls.channel_credentials(identity)
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{port}", credentials, options=(("grpc.ssl_target_name_override", tls.AGENT),)
        )
    async with channel:
        return await TelemetryStub(channel).Watch(WatchRequest(), timeout=5).read()


async def refused(port: int, identity: tls.Identity | None) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as fault:
        await first_frame(port, identity)
    return fault.value.code()


def test_a_controller_gets_the_stream_and_nobody_else(certificates: Path) -> None:
    async def body() -> None:
        async with serving(certificates / "agent") as port:
            assert (await first_frame(port, tls.read(certificates / "controller"))).full
            assert await refused(port, None) is grpc.StatusCode.UNAVAILABLE
            # what a node holds opens no other node
            assert await refused(port, tls.read(certificates / "agent")) is grpc.StatusCode.PERMISSION_DENIED
            stranger = make_identity(make_authority(NOW), tls.CONTROLLER, NOW)
            ours = tls.read(certificates / "controller").ca
            forged = tls.Identity(ours, stranger.certificate, stranger.key)
            assert await refused(port, forged) is grpc.StatusCode.UNAVAILABLE
            late = NOW - datetime.timedelta(days=365)
            authority = Authority(*(Path(certificates / "ca" / n).read_bytes() for n in (tls.CERTIFICATE, tls.KEY)))
            assert await refused(port, make_identity(authority, tls.CONTROLLER, late)) is grpc.StatusCode.UNAVAILABLE

    run(body())


def test_a_controller_follows_no_agent_it_cannot_verify(certificates: Path, tmp_path: Path) -> None:
    async def body() -> None:
        other = tmp_path / "other"
        keeper.write_folders(other, NOW)
        async with serving(other / "agent") as port:
            assert await refused(port, tls.read(certificates / "controller")) is grpc.StatusCode.UNAVAILABLE
        async with serving(certificates / "controller") as port:  # a controller that poses as an agent
            assert await refused(port, tls.read(certificates / "controller")) is grpc.StatusCode.UNAVAILABLE

    run(body())


def test_certificates_that_change_are_used_without_a_restart(certificates: Path) -> None:
    async def body() -> None:
        old = tls.read(certificates / "controller")
        async with serving(certificates / "agent") as port:
            await first_frame(port, old)
            for name in (tls.CERTIFICATE, tls.KEY):
                (certificates / "ca" / name).unlink()
            keeper.write_folders(certificates, NOW)
            assert (await first_frame(port, tls.read(certificates / "controller"))).full
            assert await refused(port, old) is grpc.StatusCode.UNAVAILABLE

    run(body())


def test_faulty_files_leave_the_last_good_certificates(certificates: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with serving(certificates / "agent") as port:
            (certificates / "agent" / tls.CERTIFICATE).write_text("nonsense")
            for _ in range(2):
                assert (await first_frame(port, tls.read(certificates / "controller"))).full
        said = [record.getMessage() for record in caplog.records if "last good" in record.getMessage()]
        assert said == [
            f"{certificates / 'agent' / tls.CERTIFICATE}: no PEM certificate: the last good certificates stay"
        ]

    run(body())


def test_a_controller_follows_over_tls_by_the_files_of_the_moment(certificates: Path) -> None:
    async def body() -> None:
        events: list[Event] = []
        trust = Trust(tls.Files(certificates / "controller"))
        async with serving(certificates / "agent") as port, asyncio.TaskGroup() as group:
            agents = Agents(group, lambda event, _: events.append(event), "t", Random(1), trust)
            agents.reconcile([f"127.0.0.1:{port}"])
            while not any(isinstance(event, FrameReceived) for event in events):
                await asyncio.sleep(0.01)
            agents.close()

    run(body())


def test_plain_text_beyond_loopback_is_a_decision() -> None:
    assert [Trust().allows(ip) for ip in ("127.0.0.1", "::1", "10.0.0.1")] == [True, True, False]
    assert Trust(plain=True).allows("10.0.0.1")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--bind 0.0.0.0 needs --tls-path DIR"),
        (["--tls-path", "/nowhere"], "--tls-path: /nowhere/ca.crt: No such file or directory"),
    ],
)
def test_an_agent_does_not_start_in_plain_text_by_accident(tmp_path: Path, flags: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "run", "--manifests", str(tmp_path), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, content) for name in (tls.CA, tls.CERTIFICATE, tls.KEY) for content in (None, "nonsense")),
        (tls.CERTIFICATE, "another"),
        (tls.KEY, "another"),
    ],
)
def test_what_is_wrong_with_a_folder_names_the_file(certificates: Path, name: str, content: str | None) -> None:
    folder = certificates / "agent"
    (folder / name).unlink()
    if content == "another":
        other = make_identity(make_authority(NOW), tls.AGENT, NOW)
        (folder / name).write_bytes(other.key if name == tls.KEY else other.certificate)
    elif content:
        (folder / name).write_text(content)
    with pytest.raises(tls.TlsError, match=str(folder)):
        tls.read(folder)


def test_keys_are_for_their_owner_alone(certificates: Path) -> None:
    for folder in ("ca", "agent", "controller"):
        assert os.stat(certificates / folder / tls.KEY).st_mode & 0o077 == 0
