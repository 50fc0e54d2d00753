"""The lab's place on this machine: namespaces, cgroups, processes, Envoy, and all of it put together."""
