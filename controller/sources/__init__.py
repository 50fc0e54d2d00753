"""Where the controller's knowledge comes from: agents' streams and engines' pages."""
