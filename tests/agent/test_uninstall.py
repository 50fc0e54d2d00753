"""An agent that ends takes its programs along only where its DaemonSet is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cluster import access
from agent.uninstall import is_deleted
from tests.apiserver import ApiServer, Fault, serving
from tests.kube import kubeconfig


def daemonset(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "sonde-agent", "namespace": "sonde-system", **metadata},
    }


def asked(server: ApiServer, folder: Path) -> bool:
    return is_deleted(access.find(kubeconfig(folder, server.url)), "sonde-system", "sonde-agent")


def test_a_daemonset_that_is_there_keeps_the_programs(tmp_path: Path) -> None:
    with serving() as server:
        server.put(daemonset())
        assert not asked(server, tmp_path)
        server.put(daemonset(deletionTimestamp="2030-01-01T00:00:00Z"))
        assert asked(server, tmp_path)


def test_one_that_is_gone_or_whose_rights_are_gone_does_not(tmp_path: Path) -> None:
    with serving() as server:
        assert asked(server, tmp_path)
        server.put(daemonset())
        for status in (401, 403):
            server.faults.append(Fault(fits="daemonsets", status=status))
            assert asked(server, tmp_path)


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(rubbish=b"no json")])
def test_a_server_that_cannot_tell_keeps_the_programs(tmp_path: Path, fault: Fault) -> None:
    with serving() as server:
        server.faults.append(fault)
        assert not asked(server, tmp_path)
    assert not asked(server, tmp_path)  # nobody listens any more
