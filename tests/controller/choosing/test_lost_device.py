"""A pod that lost an accelerator: last resort, and why."""

from __future__ import annotations

from random import Random

from agent.proto.telemetry_pb2 import Device, EndpointReport, Frame
from controller.choosing.pick import LOST_STEP
from controller.choosing.picker import Picker
from controller.looking.document import split
from controller.model import ClusterChanged, FrameReceived, Reason, Request
from controller.sources.agents import frame_event
from tests.controller.known import cluster, frame, kernel, pod, report, table


def lost(*pods: str) -> FrameReceived:
    return FrameReceived("node-1", False, [report(each, kernel(0), fault="GPU-1: Xid 79") for each in pods])


def test_it_is_picked_only_where_nothing_else_is() -> None:
    held = table(pod("a"), pod("b"), pod("c", ready=False))
    held.apply(frame({"a": kernel(0), "b": kernel(9, waiting=9)}, full=True), 0.0)
    held.apply(lost("a"), 0.0)
    picker = Picker(held, rng=Random(1))
    first = picker.pick(Request("/", None, None), 0.0)
    assert first is not None
    assert first.row.endpoint.pod == "b"
    assert split(held.ranks(0.0)[0]) == (0, ("lost device",))
    held.apply(lost("b"), 0.0)
    second = picker.pick(Request("/", None, None), 0.0)
    assert second is not None
    assert second.row.picks == {Reason.LOST: 1}


def test_it_is_as_before_once_its_devices_are_well_or_another_pod_has_its_name() -> None:
    held = table(pod("a"))
    held.apply(lost("a"), 0.0)
    assert held.ranks(0.0)[0] >= LOST_STEP
    held.apply(frame({"a": kernel(2)}), 0.0)
    assert held.ranks(0.0) == [2]
    held.apply(lost("a"), 0.0)
    held.apply(ClusterChanged(cluster(pod("a", uid="another"))), 0.0)
    assert held.ranks(0.0)[0] < LOST_STEP


def test_a_frames_devices_become_one_line() -> None:
    devices = [Device(id="GPU-0"), Device(id="GPU-1", fault="Xid 79"), Device(id="GPU-2", fault="Xid 48")]
    sent = Frame(node="n", endpoints=[EndpointReport(namespace="d", pod="a", port=1, devices=devices)])
    assert frame_event(sent, 0.0).reports[0].fault == "GPU-1: Xid 79, GPU-2: Xid 48"


def test_of_a_frames_devices_all_is_kept_with_its_age_and_what_cannot_be_is_unknown() -> None:
    told = Device(id="GPU-0", resource="nvidia.com/gpu", kind="gpu", share="2", utilization=0.51249, age_us=3_000_000)
    devices = [told, Device(id="GPU-1", utilization=float("nan")), Device(id="GPU-2", utilization=1.5)]
    sent = Frame(node="n", endpoints=[EndpointReport(namespace="d", pod="a", port=1, devices=devices)])
    first, *others = frame_event(sent, 10.0).reports[0].devices
    assert (first.resource, first.kind, first.share, first.utilization) == ("nvidia.com/gpu", "gpu", "2", 0.512)
    assert (first.at_s, first.memory_used_bytes) == (7, None)
    assert [(one.utilization, one.at_s) for one in others] == [(None, None), (None, None)]
