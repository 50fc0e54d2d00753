"""Every number the README claims, by one command each."""
