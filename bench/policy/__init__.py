"""Policies against each other in a deterministic simulation of a pool of inference engines."""
