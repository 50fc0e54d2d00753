"""Measures the inference pods of one node in its kernel and streams what it sees."""
