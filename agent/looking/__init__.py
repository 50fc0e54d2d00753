"""What people see of an agent: tables in a terminal, its health and node pages."""
