"""What went wrong in a lab, as lines for people."""

from __future__ import annotations


def leaves(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """One for each error of a group, however deep."""
    found: list[str] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [str(error) or type(error).__name__]
    return found
