"""Client side of connections: channels that come back fast after a restart, and that prove who calls.

Deadlines are the caller's: pass `timeout=` with every call.
"""

from __future__ import annotations

import grpc
import grpc.aio

from services.shared.rpc.credentials import Credential, CredentialChannel, CredentialInterceptor
from services.shared.rpc.options import Transport


def open_channel(
    address: str, transport: Transport | None = None, credential: Credential | None = None
) -> grpc.aio.Channel:
    """A channel to HOST:PORT for asyncio. Needs a running loop, and no peer yet. Close it with `await close()`.

    `credential` goes out with every call; without one, a room answers health and reflection alone.
    """
    channel = grpc.aio.insecure_channel(address, options=(transport or Transport()).channel_options())
    return channel if credential is None else CredentialChannel(channel, credential)


def open_sync_channel(
    address: str, transport: Transport | None = None, credential: Credential | None = None
) -> grpc.Channel:
    """A channel to HOST:PORT for threads. Needs no peer yet. Close it with `close()`. `credential` as above."""
    channel = grpc.insecure_channel(address, options=(transport or Transport()).channel_options())
    return channel if credential is None else grpc.intercept_channel(channel, CredentialInterceptor(credential))
