"""Connections end: those whose certificate files cannot be read, and those that nobody answers. And kafka-python has
the names that we reach into.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport

from services.shared.bus import kafka_connection
from services.shared.bus.kafka_client import open_client
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings
from tests.support.silent_server import address, silent_server

SET_UP_MS = 200


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with silent_server() as listening:
        yield listening


def why_not(listening: socket.socket, **options: Any) -> BaseException | None:
    """The error of a connection."""
    client = open_client(
        bootstrap_servers=[address(listening)], socket_connection_setup_timeout_ms=SET_UP_MS, **options
    )
    try:
        made = client._manager.get_connection("bootstrap-0").init_future
        client._net.poll(timeout_ms=60_000, future=made)
        assert made.is_done, "nobody gives it up"
        error: BaseException | None = made.exception
        return error
    finally:
        client.close()


def hears_the_end(listening: socket.socket) -> bool:
    """The first connection was closed by who made it."""
    connection, _ = listening.accept()
    with connection:
        connection.settimeout(60)
        while connection.recv(4096):
            pass
    return True


@pytest.mark.parametrize("content", [None, "no certificate\n"], ids=["missing", "half written"])
def test_certificate_files_that_cannot_be_read_are_an_error_of_kafkas(
    silent: socket.socket, tmp_path: Path, content: str | None
) -> None:
    """Any other ends the refresh of metadata for good."""
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    assert isinstance(why_not(silent, security_protocol="SSL", ssl_cafile=str(file)), KafkaConnectionError)
    assert hears_the_end(silent)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_server_that_answers_nothing_is_given_up(silent: socket.socket, protocol: str) -> None:
    why = why_not(silent, security_protocol=protocol, request_timeout_ms=SET_UP_MS)
    assert why is not None
    assert hears_the_end(silent)


@pytest.mark.parametrize("kind", ["consumer", "producer", "admin"])
def test_every_client_gives_it_up(silent: socket.socket, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_connection, "BOOTSTRAP_TIMEOUT_MS", SET_UP_MS)
    monkeypatch.setattr(kafka_connection, "diagnose", lambda *_: None)
    connection = KafkaConnection(BusSettings(bootstrap_servers=address(silent), security_protocol="SSL"))

    def make() -> None:
        if kind == "admin":
            with connection.admin():
                return
        getattr(connection, kind)("client")

    with pytest.raises(Unavailable):
        make()


def test_kafka_python_has_the_names_that_the_client_overrides() -> None:
    assert inspect.iscoroutinefunction(KafkaConnectionManager._build_transport)
    assert list(inspect.signature(KafkaConnectionManager._build_transport).parameters) == ["self", "node", "timeout_at"]
    assert list(inspect.signature(KafkaNetClient).parameters) == ["net", "manager", "configs"]
    for wait in (NetworkSelector.wait_read, NetworkSelector.wait_write):
        assert list(inspect.signature(wait).parameters) == ["self", "fileobj", "timeout_at"]
    assert list(inspect.signature(KafkaSSLTransport).parameters) == ["net", "sock", "host", "configs"]
