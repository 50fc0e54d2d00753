"""A kubelet's PodResources socket that says what it is told: devices for pods on machines that have none.

`python -m lab.machine.kubelet --socket PATH NAMESPACE/POD=RESOURCE:ID ...` serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from agent.proto import podresources_pb2_grpc
from agent.proto.podresources_pb2 import (
    ContainerDevices,
    ContainerResources,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    PodResources,
)

Given = tuple[str, str, str, str]  # namespace, pod, resource, device id


class Kubelet(podresources_pb2_grpc.PodResourcesListerServicer):
    """Answers with `pods`, which its owner may change."""

    def __init__(self, *pods: PodResources) -> None:
        self.pods = list(pods)

    async def List(
        self, request: ListPodResourcesRequest, context: grpc.aio.ServicerContext
    ) -> ListPodResourcesResponse:
        return ListPodResourcesResponse(pod_resources=self.pods)


def pod(name: str, *devices: tuple[str, str], namespace: str = "default") -> PodResources:
    """Of one container, whose devices are (resource, id)."""
    held = [ContainerDevices(resource_name=resource, device_ids=[text]) for resource, text in devices]
    return PodResources(name=name, namespace=namespace, containers=[ContainerResources(name="c", devices=held)])


def pods(given: Iterable[Given]) -> list[PodResources]:
    """Those with devices, each with all of its own, in the order they are first named."""
    by_pod: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for namespace, name, resource, device in given:
        by_pod.setdefault((namespace, name), []).append((resource, device))
    return [pod(name, *devices, namespace=namespace) for (namespace, name), devices in by_pod.items()]


@asynccontextmanager
async def serving(kubelet: Kubelet, socket: Path) -> AsyncIterator[None]:
    """Raises OSError if the socket cannot be had."""
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),))
    podresources_pb2_grpc.add_PodResourcesListerServicer_to_server(kubelet, server)  # type: ignore[no-untyped-call]
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise OSError(f"{socket}: cannot listen there: {error}") from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        socket.unlink(missing_ok=True)  # noqa: ASYNC240 - an unlink of a local socket


def given(text: str) -> Given:
    """NAMESPACE/POD=RESOURCE:ID. Raises argparse.ArgumentTypeError."""
    where, _, what = text.partition("=")
    namespace, _, name = where.partition("/")
    resource, _, device = what.partition(":")
    if not (namespace and name and resource and device):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAMESPACE/POD=RESOURCE:ID")
    return namespace, name, resource, device


async def _serve(socket: Path, devices: Sequence[Given]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(Kubelet(*pods(devices)), socket):
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.machine.kubelet", description="PodResources with made-up devices."
    )
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH", help="where the agent asks")
    parser.add_argument("devices", nargs="*", type=given, metavar="NAMESPACE/POD=RESOURCE:ID")
    flags = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(flags.socket, flags.devices))
    except OSError as error:
        print(f"lab.machine.kubelet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
