"""The Kubernetes objects that both daemons act on, read from plain documents into frozen values.

Knows the shapes and limits of the objects; refuses to know where a document came from (a folder or an API server).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.cluster.containers import is_meshed, named_ports
from agent.cluster.fields import Fields, shown
from agent.cluster.fields import ObjectError as ObjectError  # part of what this module gives
from agent.cluster.services import DISCOVERY, Service, Slice, read_service, read_slice

V1 = "inference.networking.k8s.io/v1"
V1ALPHA2 = "inference.networking.x-k8s.io/v1alpha2"
LLM_D = "llm-d.ai/v1alpha2"  # where llm-d moved InferenceObjective and InferenceModelRewrite in 2026

FAILURE_MODES = ("FailClose", "FailOpen")
APP_PROTOCOLS = ("http", "kubernetes.io/h2c")
ENDED = ("Succeeded", "Failed")  # phases of a pod whose address another may have by now, though it still says it
CRITICALITIES = ("Critical", "Standard", "Sheddable")
MAX_TARGET_PORTS = 8
MAX_TARGET_MODELS = 10
MAX_WEIGHT = 1_000_000
MAX_LABELS = 64
MAX_MODEL_NAME = 256
MAX_TARGET_NAME = 253

# which of the pool's target ports a pod serves, such as "8000,8001"; the first that is there counts
ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")

# on a pool: the Service of its namespace whose connections agents may steer to its pods
BALANCE_SERVICE = "sonde.dev/balance-service"

AGENT_LABEL = ("app.kubernetes.io/name", "sonde-agent")


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    uid: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    ip: str | None  # None: not yet given one, or given up
    node: str | None
    ready: bool  # the Ready condition is True and the phase, where given, is Running
    terminating: bool
    active_ports: frozenset[int] | None = None  # None: it does not say, so it serves all of its pool's
    meshed: bool = False  # a sidecar takes its connections
    named_ports: Mapping[str, int] = field(default_factory=dict)  # of its containers


@dataclass(frozen=True, slots=True)
class Pool:
    namespace: str
    name: str
    group: str
    version: str
    selector: Mapping[str, str]
    target_ports: tuple[int, ...]
    failure_mode: str
    created: str  # RFC 3339 or ""; sorts by age
    app_protocol: str = "http"
    balance_service: str = ""  # as the annotation has it, a name or not; "": none


@dataclass(frozen=True, slots=True)
class Target:
    """One model a name may lead to; weight None means that no target of the list has one."""

    model: str
    weight: int | None


@dataclass(frozen=True, slots=True)
class Model:
    """InferenceModel v1alpha2."""

    namespace: str
    name: str
    pool: str
    model_name: str
    criticality: str | None
    targets: tuple[Target, ...]
    created: str
    pool_group: str = ""  # "": it does not say, so it means any
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class Objective:
    namespace: str
    name: str
    pool: str
    priority: int
    created: str
    pool_group: str = ""  # "": it does not say, so it means any
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class RewriteRule:
    models: tuple[str, ...]  # empty: every model
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class ModelRewrite:
    namespace: str
    name: str
    pool: str
    rules: tuple[RewriteRule, ...]
    created: str
    pool_group: str = ""  # "": it does not say, so it means any
    terminating: bool = False


Object = Pod | Pool | Model | Objective | ModelRewrite | Service | Slice
ObjectKey = tuple[str, str]  # namespace, name
PoolKey = tuple[str, str, str]  # group, namespace, name


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything known at one instant."""

    pods: Mapping[ObjectKey, Pod] = field(default_factory=dict)
    pools: Mapping[PoolKey, Pool] = field(default_factory=dict)
    models: Mapping[ObjectKey, Model] = field(default_factory=dict)
    objectives: Mapping[ObjectKey, Objective] = field(default_factory=dict)
    rewrites: Mapping[ObjectKey, ModelRewrite] = field(default_factory=dict)
    services: Mapping[ObjectKey, Service] = field(default_factory=dict)
    slices: Mapping[ObjectKey, Slice] = field(default_factory=dict)

    def pods_of(self, pool: Pool) -> list[Pod]:
        """The pods that the pool's selector matches, ready or not, in the order of their names."""
        wanted = pool.selector.items()
        found = [
            pod for pod in self.pods.values() if pod.namespace == pool.namespace and wanted <= dict(pod.labels).items()
        ]
        return sorted(found, key=lambda pod: pod.name)

    def slices_of(self, service: Service) -> list[Slice]:
        """Who is behind a Service, as the cluster's own controller says it."""
        key = (service.namespace, service.name)
        return [one for one in self.slices.values() if (one.namespace, one.service) == key]

    def agents(self) -> list[Pod]:
        """The pods of Sonde's agents that have an address and stay."""
        label, value = AGENT_LABEL
        found = [pod for pod in self.pods.values() if pod.labels.get(label) == value and pod.ip and not pod.terminating]
        return sorted(found, key=lambda pod: (pod.namespace, pod.name))


def serving_ports(pool: Pool, pod: Pod) -> tuple[int, ...]:
    """The ports of the pool that the pod serves: one engine, or one data-parallel rank, behind each."""
    if pod.active_ports is None:
        return pool.target_ports
    return tuple(port for port in pool.target_ports if port in pod.active_ports)


def cluster_of(objects: list[Object]) -> Cluster:
    """Sorts objects by kind; of two with the same kind and name the later one stays."""
    return Cluster(
        pods={(o.namespace, o.name): o for o in objects if isinstance(o, Pod)},
        pools={(o.group, o.namespace, o.name): o for o in objects if isinstance(o, Pool)},
        models={(o.namespace, o.name): o for o in objects if isinstance(o, Model)},
        objectives={(o.namespace, o.name): o for o in objects if isinstance(o, Objective)},
        rewrites={(o.namespace, o.name): o for o in objects if isinstance(o, ModelRewrite)},
        services={(o.namespace, o.name): o for o in objects if isinstance(o, Service)},
        slices={(o.namespace, o.name): o for o in objects if isinstance(o, Slice)},
    )


def is_told(document: object) -> bool:
    """Whether a document says which object it is, right or wrong."""
    return isinstance(document, dict) and isinstance(document.get("kind"), str) and _name_of(document) is not None


def title(document: object) -> str:
    """How a complaint names the object: `Pod default/a`, as far as the document says."""
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        return "document"
    name = _name_of(document)
    return f"{document['kind']} {name}" if name else f"{document['kind']} without a name"


def _name_of(document: dict[Any, Any]) -> str | None:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return None
    return f"{metadata.get('namespace') or 'default'}/{metadata['name']}"


def read_object(document: object) -> Object:
    """One document as the object it is. Raises ObjectError naming the object and the field."""
    try:
        if not isinstance(document, dict):
            raise ObjectError(f"expected an object with apiVersion and kind, got {shown(document)}")
        fields = Fields(document)
        return _reader(fields)(fields, fields.fields("metadata"))
    except ObjectError as error:
        raise ObjectError(f"{title(document)}: {error}") from None


Reader = Callable[[Fields, Fields], Object]


def _reader(fields: Fields) -> Reader:
    kind = fields.text("kind")
    versions = READERS.get(kind)
    if versions is None:
        raise fields.fault("kind", f"unknown, expected one of {', '.join(READERS)}")
    api = fields.text("apiVersion")
    if api not in versions:
        raise fields.fault("apiVersion", f"expected {' or '.join(versions)}, got {shown(api)}")
    return versions[api]


def _pod(fields: Fields, metadata: Fields) -> Pod:
    spec, status = fields.fields("spec", optional=True), fields.fields("status", optional=True)
    conditions = {c.text("type"): c.text("status", default="") for c in status.items("conditions")}
    phase = status.text("phase", default="Running")
    return Pod(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        uid=metadata.text("uid", default="") or None,
        labels=metadata.texts("labels"),
        annotations=metadata.texts("annotations"),
        ip=None if phase in ENDED else _ip(status),
        node=spec.text("nodeName", default="") or None,
        ready=conditions.get("Ready") == "True" and phase == "Running",
        terminating=_terminating(metadata),
        active_ports=_active_ports(metadata.fields("annotations", optional=True)),
        meshed=is_meshed(spec.values, metadata.texts("annotations")),
        named_ports=named_ports(spec.values),
    )


def _active_ports(annotations: Fields) -> frozenset[int] | None:
    key = next((key for key in ACTIVE_PORTS if key in annotations.values), None)
    if key is None:
        return None
    parts = [part.strip() for part in annotations.text(key, default="").split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 and 1 <= int(part) <= 65535 for part in parts):
        raise annotations.fault(key, f"expected ports such as 8000,8001, got {shown(annotations.values[key])}")
    return frozenset(int(part) for part in parts)


def _ip(status: Fields) -> str | None:
    """The first of its addresses, which podIP repeats."""
    text = status.text("podIP", default="") or next((one.text("ip") for one in status.items("podIPs")), "")
    if not text:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise status.fault("podIP", f"expected an IP address, got {shown(text)}") from None


def _pool_v1(fields: Fields, metadata: Fields) -> Pool:
    spec = fields.fields("spec")
    selector = spec.fields("selector")
    labels = selector.texts("matchLabels")
    if not 0 < len(labels) <= MAX_LABELS:
        problem = "missing, expected at least one label" if not labels else f"expected at most {MAX_LABELS} labels"
        raise selector.fault("matchLabels", problem)
    ports = tuple(port.number("number", 1, 65535) for port in spec.items("targetPorts", MAX_TARGET_PORTS))
    if not ports:
        raise spec.fault("targetPorts", f"missing, expected 1..{MAX_TARGET_PORTS} ports")
    if len(set(ports)) < len(ports):
        raise spec.fault("targetPorts", f"expected each port once, got {', '.join(map(str, ports))}")
    picker = spec.fields("endpointPickerRef", optional=True)
    picker.fields("port", optional=True).number("number", 1, 65535, default=0)
    return _pool(fields, metadata, labels, ports, picker)


def _pool_v1alpha2(fields: Fields, metadata: Fields) -> Pool:
    spec = fields.fields("spec")
    labels = spec.texts("selector")
    if not labels:
        raise spec.fault("selector", "missing, expected at least one label")
    port = spec.number("targetPortNumber", 1, 65535)
    picker = spec.fields("extensionRef", optional=True)
    picker.number("portNumber", 1, 65535, default=0)
    return _pool(fields, metadata, labels, (port,), picker)


def _pool(fields: Fields, metadata: Fields, labels: dict[str, str], ports: tuple[int, ...], picker: Fields) -> Pool:
    group, version = fields.text("apiVersion").split("/")
    return Pool(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        group=group,
        version=version,
        selector=labels,
        target_ports=ports,
        failure_mode=picker.one_of("failureMode", FAILURE_MODES, default="FailClose"),
        created=metadata.time("creationTimestamp"),
        app_protocol=fields.fields("spec").one_of("appProtocol", APP_PROTOCOLS, default="http"),
        balance_service=metadata.fields("annotations", optional=True).text(BALANCE_SERVICE, default=""),
    )


def _pool_ref(spec: Fields) -> tuple[str, str]:
    """The name and the group of the pool an object is for."""
    ref = spec.fields("poolRef")
    ref.one_of("kind", ("InferencePool",), default="InferencePool")
    return ref.text("name"), ref.text("group", default="")


def _model(fields: Fields, metadata: Fields) -> Model:
    spec = fields.fields("spec")
    pool, group = _pool_ref(spec)
    targets = _targets(spec, "targetModels", "name")
    if len({target.weight is None for target in targets}) > 1:
        raise spec.fault("targetModels", "expected a weight on every entry or on none")
    return Model(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        pool=pool,
        model_name=spec.text("modelName", limit=MAX_MODEL_NAME),
        criticality=spec.one_of("criticality", CRITICALITIES, default="") or None,
        targets=targets,
        created=metadata.time("creationTimestamp"),
        pool_group=group,
        terminating=_terminating(metadata),
    )


def _terminating(metadata: Fields) -> bool:
    return bool(metadata.text("deletionTimestamp", default=""))


def _targets(spec: Fields, key: str, name: str) -> tuple[Target, ...]:
    items = spec.items(key, MAX_TARGET_MODELS)
    return tuple(Target(item.text(name, limit=MAX_TARGET_NAME), _weight(item)) for item in items)


def _weight(item: Fields) -> int | None:
    return None if item.values.get("weight") is None else item.number("weight", 1, MAX_WEIGHT)


def _objective(fields: Fields, metadata: Fields) -> Objective:
    spec = fields.fields("spec")
    pool, group = _pool_ref(spec)
    return Objective(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        pool=pool,
        priority=spec.number("priority", -(2**31), 2**31 - 1, default=0),
        created=metadata.time("creationTimestamp"),
        pool_group=group,
        terminating=_terminating(metadata),
    )


def _rewrite(fields: Fields, metadata: Fields) -> ModelRewrite:
    spec = fields.fields("spec")
    pool, group = _pool_ref(spec)
    return ModelRewrite(
        namespace=metadata.text("namespace", default="default"),
        name=metadata.text("name"),
        pool=pool,
        rules=tuple(_rule(rule) for rule in spec.items("rules")),
        created=metadata.time("creationTimestamp"),
        pool_group=group,
        terminating=_terminating(metadata),
    )


def _rule(rule: Fields) -> RewriteRule:
    matches = [match.fields("model") for match in rule.items("matches")]
    for match in matches:
        match.one_of("type", ("Exact",), default="Exact")
    return RewriteRule(
        models=tuple(match.text("value") for match in matches), targets=_targets(rule, "targets", "modelRewrite")
    )


READERS: Mapping[str, Mapping[str, Reader]] = {
    "Pod": {"v1": _pod},
    "InferencePool": {V1: _pool_v1, V1ALPHA2: _pool_v1alpha2},
    "InferenceModel": {V1ALPHA2: _model},
    "InferenceObjective": {V1ALPHA2: _objective, LLM_D: _objective},
    "InferenceModelRewrite": {V1ALPHA2: _rewrite, LLM_D: _rewrite},
    "Service": {"v1": read_service},
    "EndpointSlice": {DISCOVERY: read_slice},
}
