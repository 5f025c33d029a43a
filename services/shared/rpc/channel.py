"""Client side of connections: channels that come back fast after a restart.

Deadlines are the caller's: pass `timeout=` with every call.
"""

from __future__ import annotations

import grpc
import grpc.aio

from services.shared.rpc.options import Transport


def open_channel(address: str, transport: Transport | None = None) -> grpc.aio.Channel:
    """A channel to HOST:PORT for asyncio. Needs a running loop, and no peer yet. Close it with `await close()`."""
    return grpc.aio.insecure_channel(address, options=(transport or Transport()).channel_options())


def open_sync_channel(address: str, transport: Transport | None = None) -> grpc.Channel:
    """A channel to HOST:PORT for threads. Needs no peer yet. Close it with `close()`."""
    return grpc.insecure_channel(address, options=(transport or Transport()).channel_options())
