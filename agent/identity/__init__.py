"""Who agents and controllers are to each other: certificates, and the credentials made of them."""
