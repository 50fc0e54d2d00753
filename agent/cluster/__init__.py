"""Kubernetes objects as values, and where they come from. Shared by agent and controller."""
