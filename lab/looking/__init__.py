"""What the lab shows while it runs."""
