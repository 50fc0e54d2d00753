"""How an address and its port are written together, as gateways, gRPC and HTTP want them."""

from __future__ import annotations


def address_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
