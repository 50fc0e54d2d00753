"""What people see of the controller: the live page and the table in a terminal."""
