"""Which pods run on this node, and which slot counts which of their ports."""
