"""The header `Authorization: Bearer ...` (RFC 6750), and the metadata entry of the same name in gRPC."""

from __future__ import annotations

from services.shared.domain.errors import Unauthenticated

METADATA_KEY = "authorization"
SCHEME = "Bearer"


def bearer(secret: str) -> str:
    """The header's value."""
    return f"{SCHEME} {secret}"


def presented(authorization: str) -> str:
    """What a header's value presents. Raises Unauthenticated if it is empty or of another scheme."""
    scheme, _, secret = authorization.strip().partition(" ")
    if not scheme:
        raise Unauthenticated(
            "An API key is needed, and none was sent. Send the header 'Authorization: Bearer KEY' (in gRPC: metadata "
            "of that name); `thumbloop keys create` makes a key.",
            reason="API_KEY_MISSING",
            field="Authorization",
        )
    if scheme.lower() != SCHEME.lower() or not secret.strip():
        raise Unauthenticated(
            "The header Authorization is not of the form 'Bearer KEY'. Send an API key in this form.",
            reason="API_KEY_MISSING",
            field="Authorization",
        )
    return secret.strip()
