"""Forms of the values that flags take, each with one line on what is wrong with any other."""

from __future__ import annotations

import argparse
import re
from urllib.parse import urlsplit

SHORTEST_INTERVAL_S = 0.001
LONGEST_SAMPLING_S = 1.0  # controllers take counts older than a few seconds for unknown
_GO_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def duration_s(text: str) -> float:
    """Seconds of a duration in Go's form, such as 50ms, 1s or 1m30s. Raises ArgumentTypeError."""
    parts = list(_GO_PART.finditer(text))
    if text == "0":
        return 0.0
    if not parts or "".join(part[0] for part in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 50ms, 1s or 1m30s")
    return sum(float(part[1]) * _GO_UNITS_S[part[2]] for part in parts)


def interval(text: str) -> float:
    seconds = duration_s(text)
    if seconds < SHORTEST_INTERVAL_S:
        raise argparse.ArgumentTypeError(f"{text} is below the shortest interval, {SHORTEST_INTERVAL_S * 1000:g}ms")
    return seconds


def sampling_interval(text: str) -> float:
    seconds = interval(text)
    if seconds > LONGEST_SAMPLING_S:
        raise argparse.ArgumentTypeError(f"{text} is above the longest interval, {LONGEST_SAMPLING_S:g}s")
    return seconds


def share(text: str) -> float:
    try:
        cores = float(text)
    except ValueError:
        cores = -1.0
    if not 0 <= cores < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no share of a core such as 0.1")
    return cores


def port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port number 0..65535")
    return int(text)


def name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def names(text: str) -> tuple[str, ...]:
    found = tuple(one for one in text.split(",") if one)
    if not found:
        raise argparse.ArgumentTypeError("expected names with commas between them")
    return found


def url(text: str) -> str:
    if not _is_url(text, ("http",)):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as http://10.0.0.1:9400/metrics")
    return text


def kubelet(text: str) -> str:
    if not _is_url(text, ("https", "http")):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as https://10.0.0.1:10250")
    return text


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        split = urlsplit(text)
        return split.scheme in schemes and bool(split.hostname) and (split.port is None or split.port > 0)
    except ValueError:
        return False


def daemonset(text: str) -> tuple[str, str]:
    namespace, _, own = text.partition("/")
    if not namespace or not own or "/" in own:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAMESPACE/NAME")
    return namespace, own
