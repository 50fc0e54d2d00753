"""Ranks, by which people read a pick: the price or the load, and a step far above any of them for each thing that
speaks against an endpoint. Pure."""

from __future__ import annotations

EJECTED_STEP = 5e8
STALLED_STEP = 1e9
LOST_STEP = 2e9  # an accelerator of the pod is lost: it may accept requests and fail each
UNREADY_STEP = 4e9
TERMINATING_STEP = 8e9

# by name, the highest first
STEPS = (
    (TERMINATING_STEP, "terminating"),
    (UNREADY_STEP, "unready"),
    (LOST_STEP, "lost device"),
    (STALLED_STEP, "stalled"),
    (EJECTED_STEP, "ejected"),
)
