"""How a fault is put in place of what is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """`owner.name` becomes `make` of what it was. Raises LookupError where there is nothing of that name."""
    if not hasattr(owner, name):
        raise LookupError(f"{owner} has no {name} any more: plant this fault elsewhere.")
    setattr(owner, name, make(getattr(owner, name)))
