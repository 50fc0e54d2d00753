"""What inference engines say of themselves on their metrics pages. Shared by agent and controller."""
