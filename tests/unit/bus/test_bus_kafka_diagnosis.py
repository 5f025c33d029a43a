"""Whoever does not answer is told from who speaks another language. What real brokers say is tested beside them
(tests/integration/kafka/test_kafka_secured.py)."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from services.shared.bus import kafka_diagnosis
from services.shared.bus.kafka_connection import security_options
from services.shared.bus.kafka_diagnosis import diagnose
from services.shared.settings.model import BusSettings
from tests.support.certificates import Authority
from tests.support.silent_server import address, silent_server

Handle = Callable[[socket.socket], None]
PROTOCOLS = ["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"]
TLS_HANDSHAKE = b"\x16"


def reason(listening: socket.socket, protocol: str) -> str | None:
    settings = BusSettings.model_validate(
        {
            "bootstrap_servers": address(listening),
            "security_protocol": protocol,
            "sasl_mechanism": "PLAIN",
            "sasl_username": "u",
            "sasl_password": "p",
        }
    )
    cause = diagnose(settings, security_options(settings))
    return None if cause is None else cause.reason


@contextmanager
def serving(handle: Handle) -> Iterator[socket.socket]:
    """Each connection is handed to `handle`, and closed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):  # shut down
                while True:
                    connection, _ = listening.accept()
                    connection.settimeout(60)
                    with connection, suppress(OSError):
                        handle(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(60)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_accepts_and_answers_nothing_is_silent(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_diagnosis, "CONNECT_TIMEOUT_S", 0.2)
    with silent_server() as listening:
        assert reason(listening, protocol) == "KAFKA_SILENT"


def hang_up(connection: socket.socket) -> None:
    connection.recv(4096)


def reset(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("handle", [hang_up, reset])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_hangs_up_on_everybody_speaks_neither(protocol: str, handle: Handle) -> None:
    with serving(handle) as listening:
        assert reason(listening, protocol) == "KAFKA_NO_GREETING"


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_connection_that_is_lost_is_not_one_that_nobody_took(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> socket.socket:
        mine, theirs = socket.socketpair()
        theirs.close()
        return mine

    monkeypatch.setattr(socket, "create_connection", lost)
    with silent_server() as listening:
        assert reason(listening, protocol) == "KAFKA_NO_GREETING"


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_a_port_that_answers_tls_alone_speaks_tls(protocol: str, tmp_path: Path) -> None:
    """It hangs up on plain text without an alert."""
    pair = Authority(tmp_path, "authority").issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def answer_tls(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE:
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1)

    with serving(answer_tls) as listening:
        assert reason(listening, protocol) == "KAFKA_SPEAKS_TLS"


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_a_port_that_waits_for_the_rest_of_a_hello_speaks_no_tls(protocol: str) -> None:
    """Read as plain text, TLS begins with the size of a very large request."""

    def answer_plain_text(connection: socket.socket) -> None:
        if connection.recv(1) == TLS_HANDSHAKE:
            while connection.recv(4096):
                pass
        else:
            connection.sendall(b"\0\0\0\x06")

    with serving(answer_plain_text) as listening:
        assert reason(listening, protocol) == "KAFKA_NO_TLS"
