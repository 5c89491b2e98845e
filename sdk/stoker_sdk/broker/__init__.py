"""The NATS broker that the platform keeps calls and runs in: where it is, and how its processes connect."""
