"""Asks kubelet which devices each pod of the node has: PodResources v1 over its unix socket.

The answer names pods by namespace and name, not by uid. Knows nothing of what devices are for.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from agent.devices.names import Device, device
from agent.proto.podresources_pb2 import ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse

METHOD = "/v1.PodResourcesLister/List"
ANSWER_LIMIT_BYTES = 16 << 20
TIMEOUT_S = 5.0

PodKey = tuple[str, str]  # namespace, name
Held = dict[PodKey, tuple[Device, ...]]


class KubeletError(Exception):
    """Kubelet does not say; the text says why."""


async def ask(socket: Path) -> Held:
    """The accelerators of each pod that has any. Raises KubeletError.

    A new connection for each question: kubelet makes the socket anew when it restarts.
    """
    if not os.path.exists(socket):  # noqa: ASYNC240 - a stat of a local socket
        raise KubeletError(f"{socket}: is not there; is the folder of kubelet's pod resources mounted?")
    options = (
        ("grpc.max_receive_message_length", ANSWER_LIMIT_BYTES),
        ("grpc.enable_http_proxy", 0),
        ("grpc.default_authority", "localhost"),
    )
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
            call = channel.unary_unary(METHOD, request_serializer=ListPodResourcesRequest.SerializeToString)
            return read(await call(ListPodResourcesRequest(), timeout=TIMEOUT_S))
    except grpc.aio.AioRpcError as error:
        raise KubeletError(f"{socket}: {error.code().name}: {' '.join(str(error.details()).split())[:200]}") from None


def read(answer: bytes) -> Held:
    """Raises KubeletError."""
    try:
        pods = ListPodResourcesResponse.FromString(answer).pod_resources
    except DecodeError as error:
        raise KubeletError(f"the answer of PodResources is not understood: {error}") from None
    held: Held = {}
    for pod in pods:
        found = {one for container in pod.containers for one in _devices(container)}
        if found:
            held[pod.namespace, pod.name] = tuple(sorted(found))
    return held


def _devices(container: ContainerResources) -> list[Device]:
    plugin = [device(each.resource_name, name) for each in container.devices for name in each.device_ids]
    claimed = [
        device(claim.driver_name, claim.device_name or _cdi_name([cdi.name for cdi in claim.cdi_devices]))
        for dynamic in container.dynamic_resources
        for claim in dynamic.claim_resources
    ]
    return [one for one in (*plugin, *claimed) if one is not None]


def _cdi_name(names: list[str]) -> str:
    """The device of a CDI name such as nvidia.com/gpu=0."""
    return names[0].partition("=")[2] if names else ""
