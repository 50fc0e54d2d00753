"""What is known of each endpoint, and what speaks against it."""
