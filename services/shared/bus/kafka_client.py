"""The client under consumers, producers and administration: what kafka-python (3.0) leaves undone of connecting.

An error that is none of its own ends the library's refresh of metadata for good, silently: nobody learns of partitions
or leaders any more. Such errors come while a connection is made, of certificate files above all, which are read anew at
each. And it waits without end for a server that accepts connections and says nothing of TLS.

This module alone reaches into how the library connects; tests/unit/bus/test_bus_kafka_client.py holds the names to it.
"""

from __future__ import annotations

import ssl
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport


def open_client(**configs: Any) -> KafkaNetClient:
    """For the option `kafka_client`, which consumers, producers and administration share. Connects to nobody yet."""
    net = NetworkSelector(**configs)
    return KafkaNetClient(net=net, manager=_Manager(net, **configs), **configs)


def abandon(consumer: Any) -> None:
    """Closes the connections of one that will not be closed in good order."""
    consumer._client.close()


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Whatever fails while a connection is made is a KafkaConnectionError."""

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> KafkaTCPTransport:
        """Overrides the library's own: called once a connection, by `_connect`."""
        try:
            if self.ssl_enabled:
                return await self._secured(node, timeout_at)
            return await super()._build_transport(node, timeout_at=timeout_at)
        except KafkaError:
            raise
        except Exception as error:
            raise KafkaConnectionError(f"{type(error).__name__}: {error}") from error

    async def _secured(self, node: Any, timeout_at: float | None) -> KafkaTCPTransport:
        """As the library does it, but for the transport's kind, and for the socket, which it leaves open."""
        config = self.config
        socket = await create_connection(
            self._net,
            node.host,
            node.port,
            config["socket_options"],
            proxy_url=config["proxy_url"],
            timeout_at=timeout_at,
        )
        try:
            options = {name: value for name, value in config.items() if name.startswith("ssl_")}
            transport = _TlsTransport(self._net, socket, host=node.host, **options)
        except BaseException:
            socket.close()
            raise
        await transport.handshake_until(timeout_at)
        return transport


class _TlsTransport(KafkaSSLTransport):  # type: ignore[misc]
    """Its handshake has a deadline."""

    async def handshake_until(self, timeout_at: float | None) -> None:
        """Raises KafkaTimeoutError after it, and ssl's errors; the socket is closed then."""
        try:
            while True:
                try:
                    self._sock.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    await self._net.wait_read(self._sock, timeout_at=timeout_at)
                except ssl.SSLWantWriteError:
                    await self._net.wait_write(self._sock, timeout_at=timeout_at)
        except BaseException:
            self.close()
            raise
