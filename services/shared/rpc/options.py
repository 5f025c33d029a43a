"""Transport options that both ends of a call must agree on."""

from __future__ import annotations

from dataclasses import dataclass

Options = list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Bounds and intervals of connections, in milliseconds and bytes.

    A dead peer is noticed within `keepalive_ms + keepalive_timeout_ms`; one that comes back is reached within
    `reconnect_max_ms` (gRPC's own defaults are minutes and two minutes).
    """

    max_message_bytes: int = 16 * 1024 * 1024
    keepalive_ms: int = 10_000
    keepalive_timeout_ms: int = 5_000
    reconnect_first_ms: int = 100
    reconnect_max_ms: int = 1_000

    def server_options(self) -> Options:
        """Options of a server; a client that pings as often as ours is not taken for an attacker."""
        return [
            *self._common(),
            # Two services on one port would share its connections by chance; a taken port must be an error.
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", self.keepalive_ms // 2),
            ("grpc.http2.max_ping_strikes", 0),
        ]

    def channel_options(self) -> Options:
        """Options of a client."""
        return [
            *self._common(),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", self.reconnect_first_ms),
            ("grpc.min_reconnect_backoff_ms", self.reconnect_max_ms),
            ("grpc.max_reconnect_backoff_ms", self.reconnect_max_ms),
            ("grpc.dns_min_time_between_resolutions_ms", self.reconnect_max_ms),
            # A channel's back-off is its own, not that of whoever else in the process calls the same address.
            ("grpc.use_local_subchannel_pool", 1),
            # Services reach one another directly.
            ("grpc.enable_http_proxy", 0),
        ]

    def _common(self) -> Options:
        return [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", self.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
