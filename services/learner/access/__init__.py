"""API keys: the table that the learner alone writes, and its part of the gRPC service."""
