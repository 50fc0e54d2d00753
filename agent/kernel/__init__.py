"""The kernel boundary: programs, maps and links. Nothing here knows pods, Kubernetes or the network protocol."""
