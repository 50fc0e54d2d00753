"""One pool's weights as its table has them: looks at prices some times a second, and says what is to be told and when.

Owns the cadence; refuses to know who listens. Time is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights
from controller.endpoints.table import Table
from controller.policies.fleet import Array, Job
from controller.policies.kept import Prices
from controller.policies.price import prices
from controller.weights.scale import Scale, usable_of

LOOK_S = 0.1  # between two looks at who may be used; each shows a stall or an unready pod within that
PRICE_S = 0.25  # between two looks at prices
TELL_S = 1.0  # between two tellings of weights that moved; who must not be used is told at once
BEAT_S = 2.5  # a frame comes at least so often, so that silence means something
START_S = 3.0  # of a controller that just came: what it knows first is chance, and others or older weights are better


@dataclass(slots=True)
class Weighing:
    """`look` is to be called each LOOK_S."""

    table: Table
    scale: Scale = field(default_factory=Scale)
    at_s: float = -math.inf  # when the prices were last looked at
    measured: bool = False  # whether at least half of the endpoints were counted by a kernel then
    _known_since_s: float | None = None
    _told_at_s: float = -math.inf

    def look(self, now: float, synced: bool) -> EndpointWeights | None:
        """The frame that is due now, without sequence and age; None: none is. `synced`: the cluster was read."""
        if not synced:
            return None
        if self._known_since_s is None:
            self._known_since_s = now
        self.table.refresh(now)
        if now - self.at_s >= PRICE_S or self._is_other():
            self._price(now)
        if now - self._known_since_s < START_S or not self._is_due(now):
            return None
        self._told_at_s = now
        return self.frame()

    def frame(self) -> EndpointWeights:
        """The weights as last told."""
        table, told, price_s = self.table, self.scale.told.tolist(), self.scale.price_s().tolist()
        return EndpointWeights(
            namespace=table.namespace,
            pool=table.name,
            endpoints=[
                EndpointWeight(
                    address=row.endpoint.ip,
                    port=row.endpoint.port,
                    weight=told[row.index],
                    price_s=None if math.isnan(price_s[row.index]) else price_s[row.index],
                    node=row.endpoint.node or "",
                    pod=row.endpoint.pod,
                )
                for row in table.rows
            ],
        )

    def weights(self) -> Array | None:
        """The told weight of each row of the table; None before any was told, or when rows changed just now."""
        told = self.scale.told
        return told if self.scale.moves and self.scale.ids == self.table.fleet.ids else None

    def _is_other(self) -> bool:
        """Whether other endpoints are there, or others may be used, than at the last look at prices."""
        fleet = self.table.fleet
        if fleet.ids != self.scale.ids:
            return True
        return bool((usable_of(fleet.standing) != self.scale.usable).any())

    def _price(self, now: float) -> None:
        """Prices of a usual request, as the pick rule makes them. What the policy keeps stays untouched."""
        fleet = self.table.fleet
        fleet.now_s = now
        touched, memory = fleet.touched, Prices()
        price_s = prices(fleet, Job(fleet.mean_prompt_tokens), memory)
        fleet.touched = touched
        self.measured, self.at_s = memory.pool.measured, now
        self.scale.look(fleet.ids, price_s, fleet.standing, self.measured, now)

    def _is_due(self, now: float) -> bool:
        passed_s = now - self._told_at_s
        if self.scale.is_off or passed_s >= TELL_S:
            return self.scale.tell(now) or passed_s >= BEAT_S
        return False
