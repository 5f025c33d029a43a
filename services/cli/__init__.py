"""The command `thumbloop`."""
