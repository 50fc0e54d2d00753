"""A kubelet that answers PodResources over a unix socket as it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from agent.proto import podresources_pb2_grpc
from agent.proto.podresources_pb2 import (
    CDIDevice,
    ClaimResource,
    ContainerDevices,
    ContainerResources,
    DynamicResource,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    PodResources,
)


class Kubelet(podresources_pb2_grpc.PodResourcesListerServicer):
    def __init__(self, *pods: PodResources) -> None:
        self.pods = list(pods)
        self.raw: bytes | None = None

    async def List(
        self, request: ListPodResourcesRequest, context: grpc.aio.ServicerContext
    ) -> ListPodResourcesResponse:
        return ListPodResourcesResponse(pod_resources=self.pods)


def pod(name: str, *devices: tuple[str, str], namespace: str = "default") -> PodResources:
    """Of one container, whose devices are (resource, id)."""
    held = [ContainerDevices(resource_name=resource, device_ids=[text]) for resource, text in devices]
    return PodResources(name=name, namespace=namespace, containers=[ContainerResources(name="c", devices=held)])


def claiming(name: str, driver: str, device_name: str = "", cdi: str = "") -> PodResources:
    cdis = [CDIDevice(name=cdi)] if cdi else []
    claim = ClaimResource(driver_name=driver, device_name=device_name, cdi_devices=cdis)
    dynamic = DynamicResource(claim_name="c", claim_namespace="default", claim_resources=[claim])
    return PodResources(
        name=name, namespace="default", containers=[ContainerResources(name="c", dynamic_resources=[dynamic])]
    )


@asynccontextmanager
async def serving(kubelet: Kubelet, socket: Path) -> AsyncIterator[None]:
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),))
    podresources_pb2_grpc.add_PodResourcesListerServicer_to_server(kubelet, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        socket.unlink(missing_ok=True)
