"""Forgetting: what a person said and was told is deleted, kept out, and every consumer is ordered to do the same."""
