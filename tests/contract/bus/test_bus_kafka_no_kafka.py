"""Something else than Kafka listens at the address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from services.shared.bus import open_bus
from services.shared.bus.interface import OutgoingEvent
from services.shared.bus.kafka_diagnosis import _mechanisms
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings

ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
ACK_TIMEOUT_S = 1.0


@pytest.fixture
def web_server() -> Iterator[str]:
    """Its address; it answers whatever comes with an error page."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(4096):
                connection.sendall(4 * ANSWER)

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    serving.join(10)


def test_every_event_is_told_and_no_thread_ends(web_server: str) -> None:
    settings = BusSettings(
        bootstrap_servers=web_server,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="u",
        sasl_password="p",
        ack_timeout_s=ACK_TIMEOUT_S,
    )
    bus = open_bus(settings)
    publisher = bus.publisher("lost")
    for _ in range(4):  # the cause is looked for meanwhile
        with pytest.raises(Unavailable):
            publisher.send(OutgoingEvent(topic="feedback", key="k", value=b"said")).result(timeout=60)
    with pytest.raises(Unavailable):
        bus.log_reader("reader").places("feedback")
    alive = {thread.name for thread in threading.enumerate()}
    assert "lost-hand-over" in alive
    bus.close()


@pytest.mark.parametrize("answer", [b"", ANSWER, b"\0" * 13, b"\0" * 10 + b"\0\0\0\x02" + b"\0\x05PL"])
def test_an_answer_that_is_cut_short_or_foreign_offers_nothing(answer: bytes) -> None:
    assert _mechanisms(answer) == (0, "")
