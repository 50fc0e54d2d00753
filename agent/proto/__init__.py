"""The wire contract between agents and controllers; `make proto` writes the generated half."""
