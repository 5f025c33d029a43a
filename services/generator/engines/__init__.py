"""Engines: what draws tokens. `interface` is their contract; all of them pass one suite."""
