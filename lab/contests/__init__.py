"""What is sent to the lab, and what came of it."""
