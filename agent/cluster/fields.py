"""One mapping of a document at a time, read field by field, so that every complaint names its field and its value.

Knows types and limits; refuses to know which object it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar


class ObjectError(Exception):
    """A document that is not the object it claims to be; the text names the object and the field."""


T = TypeVar("T")


class Fields:
    """One mapping of a document and the path that leads to it, so that every complaint names its field."""

    def __init__(self, values: Mapping[Any, Any], path: str = "") -> None:
        self.values = values
        self.path = path

    def fault(self, key: str, problem: str) -> ObjectError:
        return ObjectError(f"{self.path}{key}: {problem}")

    def _get(self, key: str, kind: type[T], wanted: str, default: T | None) -> T:
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise self.fault(key, f"missing, expected {wanted}")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            quote = " (quote it)" if kind is str and isinstance(value, (int, float)) else ""
            raise self.fault(key, f"expected {wanted}, got {shown(value)}{quote}")
        return value

    def text(self, key: str, default: str | None = None, limit: int | None = None) -> str:
        value = self._get(key, str, "text", default)
        if not value and default is None:
            raise self.fault(key, "expected text, got ''")
        if limit is not None and len(value) > limit:
            raise self.fault(key, f"expected at most {limit} characters, got {len(value)}")
        return value

    def time(self, key: str) -> str:
        """An RFC 3339 time as the API writes it, in UTC and whole seconds, so that text sorts by age; "" if absent."""
        value = self.text(key, default="")
        try:
            when = datetime.fromisoformat(value) if value else None
        except ValueError:
            raise self.fault(key, f"expected a time such as 2026-01-31T12:00:00Z, got {shown(value)}") from None
        if when is None:
            return ""
        zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
        try:
            return zoned.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except OverflowError:
            raise self.fault(key, f"expected a time such as 2026-01-31T12:00:00Z, got {shown(value)}") from None

    def one_of(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self._get(key, str, " or ".join(allowed), default)
        if value not in allowed and value != default:
            raise self.fault(key, f"expected {' or '.join(allowed)}, got {shown(value)}")
        return value

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._get(key, int, f"a whole number {low}..{high}", default)
        if not low <= value <= high and self.values.get(key) is not None:
            raise self.fault(key, f"expected a whole number {low}..{high}, got {shown(value)}")
        return value

    def fields(self, key: str, optional: bool = False) -> Fields:
        empty: dict[Any, Any] | None = {} if optional else None
        return Fields(self._get(key, dict, "a mapping", empty), f"{self.path}{key}.")

    def items(self, key: str, limit: int | None = None) -> list[Fields]:
        """A list of mappings; one that is absent is empty."""
        values = self._get(key, list, "a list", [])
        if limit is not None and len(values) > limit:
            raise self.fault(key, f"expected at most {limit} entries, got {len(values)}")
        for at, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.fault(f"{key}[{at}]", f"expected a mapping, got {shown(value)}")
        return [Fields(value, f"{self.path}{key}[{at}].") for at, value in enumerate(values)]

    def texts(self, key: str) -> dict[str, str]:
        """A mapping of text to text, such as labels; one that is absent is empty."""
        inner = self.fields(key, optional=True)
        for name in inner.values:
            if not isinstance(name, str):
                raise self.fault(key, f"expected text as key, got {shown(name)} (quote it)")
        return {name: inner.text(name, default="") for name in inner.values}


def shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits; YAML can have one in hexadecimal
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
