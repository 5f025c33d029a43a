"""Client side of authentication: a credential that goes out with every call of a channel.

gRPC's own call credentials refuse to travel over connections without TLS, and its asyncio interceptors cost a task a
call; so the entry is added where a stub's methods are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from services.shared.rpc.guard import METADATA_KEY


class Credential(Protocol):
    """Proves who calls."""

    def authorization(self) -> str:
        """Value of the metadata entry `authorization` for one call, e.g. "Bearer ..."; asked for each call anew."""


class CredentialChannel(grpc.aio.Channel):
    """An asyncio channel whose calls carry a credential. All else is the inner channel's."""

    def __init__(self, inner: grpc.aio.Channel, credential: Credential) -> None:
        self._inner = inner
        self._credential = credential

    async def __aenter__(self) -> CredentialChannel:
        """The channel itself."""
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        """Closes it."""
        await self._inner.__aexit__(*failure)

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        await self._inner.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return self._carrying(self._inner.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return self._carrying(self._inner.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return self._carrying(self._inner.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return self._carrying(self._inner.stream_stream(*args, **kwargs))

    def _carrying(self, method: Any) -> Any:
        """The method, with the entry added to whatever metadata the caller passes by name."""

        def call(*args: Any, metadata: Sequence[tuple[str, Any]] | None = None, **kwargs: Any) -> Any:
            entry = (METADATA_KEY, self._credential.authorization())
            return method(*args, metadata=[*(metadata or ()), entry], **kwargs)

        return call


class CredentialInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """The same for channels of threads."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc."""
        return continuation(self._with_entry(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc."""
        return continuation(self._with_entry(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc."""
        return continuation(self._with_entry(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See grpc."""
        return continuation(self._with_entry(client_call_details), request_iterator)

    def _with_entry(self, details: Any) -> Any:
        entry = (METADATA_KEY, self._credential.authorization())
        return details._replace(metadata=[*(details.metadata or ()), entry])
