"""Questions that people and other services ask of the store. They write nothing."""
