"""The kernel programs' sources, packaged as data. Compiled on the node by `sonde-agent load`."""
