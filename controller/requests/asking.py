"""What a request asks for, as its head and its body tell. Pure.

Owns which bodies are read and which must name a model; refuses to know when heads and bodies come.

A path of a protocol that names its model in the body must do so, and so must a body without any path, of gateways that
keep the headers to themselves. Engines serve many more paths (rerank, score, pooling, tokenize, ...): there the model
is read if the body is a JSON object that has one, and whatever else comes passes.
"""

from __future__ import annotations

import re

from controller.gateway.reading import Head
from controller.model import Request
from controller.requests.openai import BadRequest, Body, read
from controller.requests.paths import Kind, Route, route_of

KEPT_PATH = 1024  # characters; longer ones are not worth the memory in which routes are kept
_OBJECT = re.compile(rb"\s*\{")


def asked(head: Head, subset: tuple[str, ...] | None, body: bytes | None, cut: bool, reads: bool = True) -> Request:
    """body: None if it is not shown; cut: it may be a part only; reads: False leaves every body unread.

    Raises BadRequest for a body that must name a model and does not.
    """
    told = head.told.get
    of = route_of if len(head.path) <= KEPT_PATH else route_of.__wrapped__
    route = of(head.path, told("content type", ""))
    found = _read(body, cut, head.path, route) if reads and body is not None else None
    return Request(
        head.path,
        found.model if found else route.model or told("model") or None,
        subset,
        route.kind,
        told("objective"),
        told("flow"),
        told("target") or None,
        body=None if cut else body,
        in_body=found is not None,
        fields=None if cut else found,
    )


def _read(body: bytes, cut: bool, path: str, route: Route) -> Body | None:
    must = route.reads_body or (route.kind is Kind.OTHER and not path)
    if not must and (route.kind is not Kind.OTHER or not _OBJECT.match(body)):
        return None
    try:
        return read(body)
    except BadRequest:
        if must and not cut:
            raise
        return None
