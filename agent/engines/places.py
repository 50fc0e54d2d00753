"""Where an engine's metrics page may be, as the labels and annotations of its pod say, and as is usual. Pure.

Refuses to know how a page is fetched or read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.engines.known import LLAMACPP, MINDIE, TRITON, TRITON_TRTLLM, TRTLLM_SERVE

# of pods, in the order in which they count
ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
PORT, PATH, SCHEME = "prometheus.io/port", "prometheus.io/path", "prometheus.io/scheme"

METRICS = "/metrics"
TRTLLM_PATH = "/prometheus/metrics"
TRITON_PORT = 8002  # its metrics have a port of their own
MINDIE_PORTS = (1027, 1026)  # of its metrics, or of its management where they share one
_OTHER_NAMES = {"llama.cpp": LLAMACPP.name, "trtllm": TRTLLM_SERVE.name, "tensorrt-llm": TRTLLM_SERVE.name}


@dataclass(frozen=True, slots=True)
class Page:
    port: int
    path: str = METRICS
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known of one engine's page before it was ever read."""

    pages: tuple[Page, ...]  # to be tried in this order; never empty
    engine: str | None = None  # None: whatever the page looks like


def hint_of(labels: Mapping[str, str], annotations: Mapping[str, str], port: int, ports: Collection[int]) -> Hint:
    """For the engine behind one of a pod's serving ports."""
    told = next((labels[key] for key in ENGINE_LABELS if key in labels), "").lower()
    engine = _OTHER_NAMES.get(told, told) or None
    pages = dict.fromkeys((*_annotated(annotations, port, ports), *_usual(engine, port)))
    return Hint(tuple(pages), engine)


def _annotated(annotations: Mapping[str, str], port: int, ports: Collection[int]) -> list[Page]:
    told = annotations.get(PORT, "").strip()
    number = int(told) if told.isascii() and told.isdigit() and len(told) <= 5 else port
    path = annotations.get(PATH, METRICS).strip()
    tls = annotations.get(SCHEME, "").strip().lower() == "https"
    if not {PORT, PATH, SCHEME} & annotations.keys() or not 0 < number <= 65535 or not is_path(path):
        return []
    # several data-parallel ranks, each with a port: one of these ports stands for the own one of each
    return [Page(port if number in ports else number, path, tls)]


def _usual(engine: str | None, port: int) -> tuple[Page, ...]:
    if engine in (TRITON.name, TRITON_TRTLLM.name):
        return (Page(TRITON_PORT),)
    if engine == TRTLLM_SERVE.name:
        return (Page(port, TRTLLM_PATH),)
    if engine == MINDIE.name:
        return tuple(Page(number, METRICS, tls) for number in MINDIE_PORTS for tls in (True, False))
    if engine is not None:
        return (Page(port),)
    return (Page(port), Page(port, TRTLLM_PATH), Page(TRITON_PORT))


@dataclass(frozen=True, slots=True)
class Told:
    """Where all pages of a pool are, as somebody says who starts a daemon."""

    port: int = 0  # 0: the engine's own
    path: str = METRICS
    tls: bool = False

    def before(self, hint: Hint, port: int) -> Hint:
        """The page that is told before those that are guessed; `port`: the engine's."""
        told = Page(self.port or port, self.path, self.tls)
        return Hint(tuple(dict.fromkeys((told, *hint.pages))), hint.engine)


def is_path(path: str) -> bool:
    return path.startswith("/") and path.isascii() and path.isprintable() and " " not in path


def in_order(hint: Hint, good: Page | None) -> tuple[Page, ...]:
    """All pages that may be an engine's, the one that was it before the others."""
    if good not in hint.pages:
        return hint.pages
    return (good, *(page for page in hint.pages if page != good))
