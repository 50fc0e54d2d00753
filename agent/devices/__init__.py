"""Accelerators of the node: which pod holds which, how they are, and when one is lost."""
