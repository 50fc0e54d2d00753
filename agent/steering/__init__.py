"""Sends new connections to a pool's Service to good endpoints, in the kernel of the client's node."""
