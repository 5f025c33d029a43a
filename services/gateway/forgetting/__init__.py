"""Forgetting a person: asked for on the control port, and carried out in what this gateway holds itself."""
