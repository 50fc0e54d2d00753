"""The whole system on one Linux machine: simulated engines, a real Envoy, the real daemons."""
