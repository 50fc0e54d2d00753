"""What kubelet's PodResources may say besides devices of plugins."""

from __future__ import annotations

from agent.proto.podresources_pb2 import CDIDevice, ClaimResource, ContainerResources, DynamicResource, PodResources


def claiming(name: str, driver: str, device_name: str = "", cdi: str = "") -> PodResources:
    cdis = [CDIDevice(name=cdi)] if cdi else []
    claim = ClaimResource(driver_name=driver, device_name=device_name, cdi_devices=cdis)
    dynamic = DynamicResource(claim_name="c", claim_namespace="default", claim_resources=[claim])
    return PodResources(
        name=name, namespace="default", containers=[ContainerResources(name="c", dynamic_resources=[dynamic])]
    )
