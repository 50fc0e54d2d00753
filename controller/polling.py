"""Who reads the sockets of gRPC: to be imported before gRPC, which reads its environment while it is imported.

gRPC has two ways. By its newer one, the default of late, threads of an event engine read and hand what they read to the
thread that waits for completions; by the other that thread reads by itself. With a message or two a request the
handing over is a sixth of all that a request costs here, and a fifth of an idle controller (`python -m bench.picker`,
with and without). Both are gRPC's own and serve alike; a name that a later gRPC does not know is logged and has no
effect.
"""

from __future__ import annotations

import os

NAME, VALUE = "GRPC_EXPERIMENTS", "-event_engine_listener,-event_engine_client"

os.environ.setdefault(NAME, VALUE)  # an operator's own word counts
