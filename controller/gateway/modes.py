"""How a gateway sends bodies to its picker: the modes of ext_proc, and what to assume of one that does not say."""

from __future__ import annotations

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

UNDECLARED = -1  # no protocol_config
NONE = ProcessingMode.NONE
STREAMED = ProcessingMode.STREAMED
BUFFERED = ProcessingMode.BUFFERED
BUFFERED_PARTIAL = ProcessingMode.BUFFERED_PARTIAL
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
GRPC = ProcessingMode.GRPC

# How bodies come from a gateway that sends no protocol_config, as an operator may tell.
ASSUMED_MODES = {"auto": UNDECLARED, "buffered": BUFFERED, "duplex": FULL_DUPLEX}
