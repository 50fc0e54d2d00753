"""The Grafana dashboards: what is in them is said here in Python, and the JSON beside it is written from that."""
