"""Clients that call a pool's Service themselves, on nodes of their own: what they get, steered or not."""
