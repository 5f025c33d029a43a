"""Scripted users and the measuring of what the loop learned from them.

``prompts`` is what they ask, ``tastes`` what they like, ``guard`` what keeps approval honest, ``measure`` the figures
and ``plot`` the picture of a run. Nothing here imports torch but the guard's scorer and sampling.
"""
