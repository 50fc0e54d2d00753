"""The controller's vocabulary: what is known of endpoints, what changes it, what a request asks and gets. Pure values.

Times ending in `_at_s` or `_until_s` are on the controller's monotonic clock. None means unknown, never zero.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.address import address_of
from agent.cluster.objects import Cluster
from agent.engines.places import Hint
from controller.requests.paths import Kind
from controller.requests.prompts import Fields

Address = str  # "ip:port", "[ip6]:port": the name of an endpoint in the endpoint picker protocol
PortKey = tuple[str, str, int]  # namespace, pod, port


def parts_of(text: str) -> tuple[str, int | None]:
    """Address and port of "ip:port", "ip", "[ip6]:port", "[ip6]" or "ip6", the address in its shortest form.
    An IPv4 address written as an IPv6 one is that IPv4 address.

    What is none of these comes back as it is, and is nobody's address.
    """
    host, colon, port = text.rpartition(":")
    bare = not colon or (":" in host and not host.endswith("]"))
    host, port = (text, "") if bare else (host, port)
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
        return str(getattr(ip, "ipv4_mapped", None) or ip), int(port) if port else None
    except ValueError:
        return text, None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One serving port of one pod of the pool."""

    namespace: str
    pod: str
    uid: str | None
    ip: str
    port: int
    ready: bool
    terminating: bool
    node: str | None = None
    hint: Hint | None = None  # where its engine's page may be; None: nothing is known of that
    address: Address = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", address_of(self.ip, self.port))

    @property
    def key(self) -> PortKey:
        return (self.namespace, self.pod, self.port)


@dataclass(frozen=True, slots=True)
class KernelSignal:
    """What the kernel of the pod's node counts for one endpoint."""

    true_at_s: float
    in_flight: int
    waiting: int  # of in_flight: nothing of the answer's data sent yet
    started: int
    progress: int  # only grows; whatever a pod answers moves it
    progress_at_s: float | None  # last response byte, or when in_flight left 0; None when idle
    usual_ttft_s: float | None
    usual_gap_s: float | None
    low_gap_s: float | None = None  # lower quartile of the gaps of about the last two seconds
    srtt_s: float | None = None
    completed: int = 0
    failed: int = 0  # answered with 5xx, or ended by the server before the answer was whole
    chunks: int = 0  # pieces of answers, about one a token where they are streamed


@dataclass(frozen=True, slots=True)
class EngineSignal:
    """What an engine says of itself."""

    true_at_s: float
    engine: str
    running: int | None
    waiting: int | None
    kv_cache_usage: float | None  # 0..1
    models: tuple[str, ...] = ()  # base models it serves; () if it does not say
    running_adapters: tuple[str, ...] = ()  # LoRA adapters that work or are loaded
    waiting_adapters: tuple[str, ...] = ()  # that requests in its queue need
    max_adapters: int | None = None  # in one batch; None: no LoRA, or it does not say
    kv_blocks: int | None = None
    kv_block_tokens: int | None = None

    @property
    def adapters(self) -> frozenset[str]:
        return frozenset((*self.running_adapters, *self.waiting_adapters))

    @property
    def kv_tokens(self) -> int | None:
        """How many tokens its KV cache holds."""
        if self.kv_blocks is None or self.kv_block_tokens is None:
            return None
        return self.kv_blocks * self.kv_block_tokens

    @property
    def requests(self) -> int | None:
        """Requests in the engine, as far as it tells; None if it tells of none."""
        told = [count for count in (self.running, self.waiting) if count is not None]
        return sum(told) if told else None


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator of a pod, as the agent of its node tells."""

    id: str
    resource: str
    kind: str  # gpu, mig, npu, other
    share: str = ""  # which part of a shared one
    fault: str = ""  # why requests on it fail
    utilization: float | None = None  # 0..1
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    at_s: int | None = None  # when its state was read, to the second; None: nobody tells its state


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's word on one endpoint."""

    namespace: str
    pod: str
    uid: str
    port: int
    kernel: KernelSignal | None
    engine: EngineSignal | None
    fault: str = ""  # of an accelerator, with its id; "" if nothing speaks against any
    devices: tuple[Device, ...] = ()

    @property
    def key(self) -> PortKey:
        return (self.namespace, self.pod, self.port)


# events: what changes the table


@dataclass(frozen=True, slots=True)
class ClusterChanged:
    cluster: Cluster


@dataclass(frozen=True, slots=True)
class FrameReceived:
    node: str
    full: bool
    reports: Sequence[Report]
    true_at_s: float | None = None  # what is not reported was still so then; None: it is not told


@dataclass(frozen=True, slots=True)
class AgentGone:
    node: str


@dataclass(frozen=True, slots=True)
class EngineScraped:
    address: Address
    signal: EngineSignal


Event = ClusterChanged | FrameReceived | AgentGone | EngineScraped


class Source(StrEnum):
    """What an endpoint's load was taken from."""

    KERNEL = "kernel"
    ENGINE = "engine"
    OWN = "own"


class Reason(StrEnum):
    """Why an endpoint was picked; a label value of sonde_controller_picks_total."""

    CHEAPEST = "cheapest"  # by its price in seconds
    PREFIX = "prefix"  # for what it has in its cache; another one was cheaper without
    ADAPTER = "adapter"  # for the adapter it has loaded; another one was cheaper without
    LEAST_WORK = "least-work"  # too few kernels tell: by the work in flight
    TIE = "tie"  # drawn among several of the lowest price
    ONLY = "only"  # nothing to choose from
    STALLED = "stalled"  # every ready endpoint is stalled or ejected
    LOST = "lost"  # every ready endpoint's pod has lost an accelerator
    RULE = "rule"  # by another rule than ours


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the pool's objects make of a request."""

    model: str | None  # as asked for; None: it names none that we can read
    target: str | None  # as the engine is to be asked
    adapter: str | None  # the LoRA adapter that the target is, as far as known
    priority: int  # negative: may be shed
    objective: str  # "": none named
    rewritten_by: str = ""  # the InferenceModelRewrite that chose the target; "": none did

    @property
    def rewrite(self) -> str | None:
        """The name to put in place of the asked one."""
        return self.target if self.target != self.model else None


@dataclass(frozen=True, slots=True)
class Request:
    """What a pick may depend on."""

    path: str
    model: str | None  # None: this kind of request names no model that we can read
    subset: tuple[str, ...] | None  # endpoints the gateway allows; None: it does not say
    kind: Kind = Kind.OTHER
    objective: str | None = None  # the InferenceObjective that a header names
    flow: str | None = None  # whose request it is, as a header says: flows of one class share fairly
    target: str | None = None  # the model to ask the engine for, as a header says
    resolved: Resolved | None = None  # None: nobody has looked it up yet
    body: bytes | None = field(default=None, compare=False, repr=False)  # None: not seen, or only a part of it
    in_body: bool = field(default=False, compare=False)  # the model was read there, so another name goes there too
    fields: Fields | None = field(default=None, compare=False, repr=False)  # of the body, if it was decoded

    def looked_up(self, resolved: Resolved) -> Request:
        """The same with what the pool's objects make of it; dataclasses.replace() takes twice as long."""
        return Request(
            self.path,
            self.model,
            self.subset,
            self.kind,
            self.objective,
            self.flow,
            self.target,
            resolved,
            self.body,
            self.in_body,
            self.fields,
        )
