"""Functions as resources of the cluster: what they ask for is done, and what became of it is their status."""
