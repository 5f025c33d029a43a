"""Connections of both clients, and their failures as our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from services.shared.domain.errors import DeadlineExceeded, InvalidInput, Unavailable

_CONNECT_S = 5.0


def http_options(base_url: str, timeout_s: float, api_key: str | None = None) -> dict[str, Any]:
    """Options that `httpx.Client` and `httpx.AsyncClient` share. Raises InvalidInput for what is no gateway's URL."""
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"{base_url!r} is no gateway; one looks like http://127.0.0.1:8080.", field="base_url")
    return {
        "base_url": url,
        "timeout": httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
        "headers": {"User-Agent": "thumbloop-python"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
    }


@contextmanager
def translated() -> Iterator[None]:
    """httpx's failures as Unavailable (nobody there, connection lost) and DeadlineExceeded."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"The gateway did not answer in time: {error!r}") from error
    except httpx.TransportError as error:
        raise Unavailable(f"The gateway cannot be reached: {error!r}") from error
