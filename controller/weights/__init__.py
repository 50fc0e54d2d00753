"""How new connections that no picker sees should be shared out: prices made slow and calm, streamed to the agents."""
