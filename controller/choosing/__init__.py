"""From a request to an endpoint: admission, the pick, and why."""
