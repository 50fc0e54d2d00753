"""What kind of request a path and a content type tell of, and the model that a path names. Pure.

Knows the paths of OpenAI's, Anthropic's, Triton's and KServe's protocols; refuses to know bodies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import unquote


class Kind(StrEnum):
    COMPLETIONS = "completions"
    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"  # Anthropic's, which vLLM and SGLang serve too
    GENERATE = "generate"  # Triton's generate extension, streamed or not
    INFER = "infer"  # KServe's v2 inference protocol
    GRPC = "grpc"
    OTHER = "other"


# As suffixes: deployments put prefixes of their own in front. The longer one first where one ends in another.
_SUFFIXES = (
    ("/chat/completions", Kind.CHAT),
    ("/completions", Kind.COMPLETIONS),
    ("/responses", Kind.RESPONSES),
    ("/embeddings", Kind.EMBEDDINGS),
    ("/v1/messages", Kind.MESSAGES),  # "/messages" alone is also that of OpenAI's threads, which name no model
)
# The kinds whose JSON body names the model.
BODY_KINDS = frozenset(kind for _, kind in _SUFFIXES)

_MODEL = re.compile(r"(?:^|/)v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/(?P<verb>[a-z_]+)$")
_VERBS = {"generate": Kind.GENERATE, "generate_stream": Kind.GENERATE, "infer": Kind.INFER}


@dataclass(frozen=True, slots=True)
class Route:
    """What a path says. `model` and `version` are those it names itself."""

    kind: Kind
    model: str | None = None
    version: str | None = None

    @property
    def reads_body(self) -> bool:
        return self.kind in BODY_KINDS


GRPC = Route(Kind.GRPC)
OTHER = Route(Kind.OTHER)
_ROUTES = {kind: Route(kind) for kind in BODY_KINDS}


@lru_cache(maxsize=1024)  # clients use a handful
def route_of(path: str, content_type: str = "") -> Route:
    """gRPC is told by its content type alone: its methods are paths too, and its bodies are no JSON."""
    if content_type.lower().startswith("application/grpc"):
        return GRPC
    plain = path.partition("?")[0].rstrip("/")
    for suffix, kind in _SUFFIXES:
        if plain.endswith(suffix):
            return _ROUTES[kind]
    found = _MODEL.search(plain)
    if found is None or found["verb"] not in _VERBS:
        return OTHER
    version = found["version"]
    return Route(_VERBS[found["verb"]], unquote(found["model"]), None if version is None else unquote(version))


def with_model(path: str, model: str) -> str:
    """The path of a v2 request with another model in place of its own; the rest stays as it is."""
    plain, mark, query = path.partition("?")
    found = _MODEL.search(plain)
    if found is None:
        return path
    begin, end = found.span("model")
    return plain[:begin] + _escaped(model) + plain[end:] + mark + query


def _escaped(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._~-]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), model)
