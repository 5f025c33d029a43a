"""From the log to the store: reads events, derives rows, and commits offsets in the same transaction."""
