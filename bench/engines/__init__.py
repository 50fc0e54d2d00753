"""Real engines under load: what the kernel says of them beside what they say of themselves. Not a part of any test."""
