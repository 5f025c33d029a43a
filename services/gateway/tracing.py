"""W3C trace context: what a client sends is passed on, if it is well-formed."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def valid_traceparent(header: str) -> str:
    """The header's value, or "": a malformed one is ignored, as the recommendation (W3C Trace Context) asks."""
    return header if _TRACEPARENT.fullmatch(header) else ""
