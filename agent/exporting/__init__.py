"""What the agent knows, as metrics, and how a page of them is written and served."""
