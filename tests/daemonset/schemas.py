"""The least of the schemas of others' custom resources: required fields, and no field that is not theirs.

Written from the published APIs (Gateway API v1, its inference extension v1 and v1alpha2, Istio networking v1,
Prometheus operator v1), for the fields these manifests use.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string", "minLength": 1}
PORT: Json = {"type": "integer", "minimum": 1, "maximum": 65535}
LABELS: Json = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
DURATION: Json = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def closed(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def every(item: Json) -> Json:
    return {"type": "array", "items": item, "minItems": 1}


def enum(*values: str) -> Json:
    return {"enum": list(values)}


_SELECTOR = closed(("matchLabels",), matchLabels=LABELS)
_POOL_V1 = closed(
    ("selector", "targetPorts", "endpointPickerRef"),
    selector=_SELECTOR,
    targetPorts={**every(closed(("number",), number=PORT)), "maxItems": 8},
    endpointPickerRef=closed(
        ("name",),
        name=TEXT,
        kind=TEXT,
        group=TEXT,
        port=closed(("number",), number=PORT),
        failureMode=enum("FailOpen", "FailClose"),
    ),
    appProtocol=enum("http", "kubernetes.io/h2c"),
)
_POOL_V1ALPHA2 = closed(
    ("selector", "targetPortNumber", "extensionRef"),
    selector=LABELS,
    targetPortNumber=PORT,
    extensionRef=closed(("name",), name=TEXT, portNumber=PORT, failureMode=enum("FailOpen", "FailClose")),
)
_MODEL = closed(
    ("modelName", "poolRef"),
    modelName=TEXT,
    criticality=enum("Critical", "Standard", "Sheddable"),
    poolRef=closed(("name",), name=TEXT, group=TEXT, kind=TEXT),
)
_GATEWAY = closed(
    ("gatewayClassName", "listeners"),
    gatewayClassName=TEXT,
    listeners=every(closed(("name", "port", "protocol"), name=TEXT, port=PORT, protocol=enum("HTTP", "HTTPS", "TLS"))),
)
_ROUTE = closed(
    ("rules",),
    parentRefs=every(closed(("name",), name=TEXT)),
    rules=every(
        closed(
            matches=every(closed(path=closed(type=enum("Exact", "PathPrefix", "RegularExpression"), value=TEXT))),
            backendRefs=every(closed(("name",), group=TEXT, kind=TEXT, name=TEXT, port=PORT)),
            timeouts=closed(request=DURATION, backendRequest=DURATION),
        )
    ),
)
_DESTINATION = closed(
    ("host",),
    host=TEXT,
    trafficPolicy=closed(
        tls=closed(("mode",), mode=enum("DISABLE", "SIMPLE", "MUTUAL"), insecureSkipVerify={"type": "boolean"})
    ),
)
_ENDPOINTS = every(closed(("port",), port=TEXT, interval=DURATION, path=TEXT, honorLabels={"type": "boolean"}))

SPECS: dict[tuple[str, str], Json] = {
    ("inference.networking.k8s.io/v1", "InferencePool"): _POOL_V1,
    ("inference.networking.x-k8s.io/v1alpha2", "InferencePool"): _POOL_V1ALPHA2,
    ("inference.networking.x-k8s.io/v1alpha2", "InferenceModel"): _MODEL,
    ("gateway.networking.k8s.io/v1", "Gateway"): _GATEWAY,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _ROUTE,
    ("networking.istio.io/v1", "DestinationRule"): _DESTINATION,
    ("monitoring.coreos.com/v1", "PodMonitor"): closed(
        ("selector", "podMetricsEndpoints"), selector=_SELECTOR, podMetricsEndpoints=_ENDPOINTS
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        ("selector", "endpoints"), selector=_SELECTOR, endpoints=_ENDPOINTS
    ),
}
