"""The simulated engine: its batching, its wire format, its knobs and its own log."""
