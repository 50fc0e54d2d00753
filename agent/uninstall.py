"""Whether the agent's DaemonSet was deleted, so that its programs leave the node with it, or stays, so that they stay.

An update ends agents too, and its counts must go on: only a server that answers, and does not have the DaemonSet or has
begun to delete it, means an end. Its rights may be deleted in the same moment, so a refusal counts as an answer.
"""

from __future__ import annotations

import logging
from typing import Any

from agent.cluster import http

log = logging.getLogger(__name__)

_GONE = (http.UNAUTHORIZED, http.FORBIDDEN, http.NOT_FOUND)


def is_deleted(door: Any, namespace: str, name: str) -> bool:
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
    try:
        found = http.get(door, path, http.CALL_S)
    except http.ApiError as error:
        if error.status in _GONE:
            log.info("DaemonSet %s/%s: %s", namespace, name, error)
            return True
        log.warning("DaemonSet %s/%s: %s: the programs stay", namespace, name, error)
        return False
    metadata = found.get("metadata")
    return bool(isinstance(metadata, dict) and metadata.get("deletionTimestamp"))
