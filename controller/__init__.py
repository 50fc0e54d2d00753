"""Picks the endpoint of every request from what agents and engines report."""
