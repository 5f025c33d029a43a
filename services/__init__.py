"""Thumbloop: online RLHF as a set of services. One folder a room; see ARCHITECTURE.md."""
