"""Every rule by its name, for `--policy` and for the benches."""

from __future__ import annotations

from controller.policies.fleet import Policy
from controller.policies.peers import PEERS
from controller.policies.price import SONDE

POLICIES: dict[str, Policy] = {"sonde": SONDE, **{name: peer for name, peer in PEERS.items() if peer.live}}
