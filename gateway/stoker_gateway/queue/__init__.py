"""Calls for later: stored in a NATS JetStream, run by workers, each with exactly one outcome."""
