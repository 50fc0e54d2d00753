"""What the controller counts, as metrics."""
