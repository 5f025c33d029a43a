"""What is said to whoever speaks for a person that was forgotten."""

from __future__ import annotations

from services.shared.domain.errors import PermissionDenied


def person_forgotten() -> PermissionDenied:
    """To be raised wherever a statement of theirs would be recorded."""
    return PermissionDenied(
        "Whoever was given this feedback token has been forgotten: nothing more is recorded of them.",
        reason="PERSON_FORGOTTEN",
        field="token",
    )
