"""Log events and metrics by catalogue."""
