"""Decides which candidates become releases, and makes known which release is live."""
