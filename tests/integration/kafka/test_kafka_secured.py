"""Secured brokers: SASL_SSL with SCRAM-SHA-512, and mutual TLS.

Plan: on each secured port, topics are created, events published, read by `assign` and in a group, and offsets of a
group mirrored, all by the rooms' own bus. Then the same bus with one thing wrong at a time.
Pass: every event is read back by both readers; each wrong thing has a word of its own (`reason`), the message names
the setting to mend, and the publisher's refusal carries it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.shared.bus import open_bus
from services.shared.bus.interface import OutgoingEvent
from services.shared.bus.kafka_connection import security_options
from services.shared.bus.kafka_diagnosis import diagnose
from services.shared.contracts.topics import load_topic_pages
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings
from tests.support.brokers import ACK_TIMEOUT_S, SharedBroker, bus_with_topics
from tests.support.certificates import Authority
from tests.support.reading import assign_all, read_count
from tests.support.secured_kafka import PASSWORD, SecuredKafka

TOPIC = "feedback"


def secured(values: dict[str, Any]) -> BusSettings:
    """With a topic prefix of the test's own, and little patience."""
    prefix = SharedBroker(bootstrap_servers="", embedded=False).settings().topic_prefix
    return BusSettings.model_validate({"topic_prefix": prefix, "ack_timeout_s": 4.0} | values)


@pytest.mark.parametrize("port", ["sasl", "mutual"])
def test_the_bus_works_on_a_secured_port(kafka: SecuredKafka, port: str) -> None:
    patient = {"ack_timeout_s": ACK_TIMEOUT_S}
    bus = bus_with_topics(
        secured(kafka.sasl(**patient) if port == "sasl" else kafka.mutual(**patient)), load_topic_pages().values()
    )
    publisher = bus.publisher("writer")
    events = [OutgoingEvent(topic=TOPIC, key=f"k{number}", value=b"said") for number in range(50)]
    sent = [future.result(timeout=2 * ACK_TIMEOUT_S) for future in [publisher.send(event) for event in events]]

    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    assert {record.key for record in read_count(reader, 50)} == {event.key for event in events}
    assert all(reader.incarnations([record.place])[record.place] for record in sent[:1])

    member = bus.group_reader(group="g", member_id="m", topic=TOPIC)
    assert {record.key for record in read_count(member, 50)} == {event.key for event in events}
    bus.group_offsets("mirrored").commit({record.place: record.offset + 1 for record in sent})
    bus.close()


def without_ca(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(ssl_cafile=None)


def another_ca(kafka: SecuredKafka) -> dict[str, Any]:
    stranger = Authority(kafka.authority.certificate.parent / "stranger", "stranger")
    return kafka.sasl(ssl_cafile=stranger.certificate)


def wrong_password(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(sasl_password="wrong")


def unknown_user(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(sasl_username="nobody")


def wrong_mechanism(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(sasl_mechanism="PLAIN")


def no_user_at_all(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(security_protocol="SSL")


def plain_text_to_sasl(kafka: SecuredKafka) -> dict[str, Any]:
    return {"bootstrap_servers": kafka.sasl()["bootstrap_servers"]}


def plain_text_to_mutual(kafka: SecuredKafka) -> dict[str, Any]:
    return {"bootstrap_servers": kafka.mutual()["bootstrap_servers"]}


def tls_to_plain(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.sasl(bootstrap_servers=kafka.broker.bootstrap_servers)


def no_client_certificate(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.mutual(ssl_certfile=None, ssl_keyfile=None)


def strangers_certificate(kafka: SecuredKafka) -> dict[str, Any]:
    stranger = Authority(kafka.authority.certificate.parent / "stranger", "stranger").issue("eve")
    return kafka.mutual(ssl_certfile=stranger.certificate, ssl_keyfile=stranger.key)


def missing_file(kafka: SecuredKafka) -> dict[str, Any]:
    return kafka.mutual(ssl_keyfile=kafka.client.key.with_suffix(".gone"))


def another_name(kafka: SecuredKafka) -> dict[str, Any]:
    port = kafka.sasl()["bootstrap_servers"].rpartition(":")[2]
    return kafka.sasl(bootstrap_servers=f"localhost:{port}")


WRONG: list[tuple[Callable[[SecuredKafka], dict[str, Any]], str, str]] = [
    (without_ca, "KAFKA_CERTIFICATE_UNTRUSTED", "THUMBLOOP_BUS__SSL_CAFILE"),
    (another_ca, "KAFKA_CERTIFICATE_UNTRUSTED", "THUMBLOOP_BUS__SSL_CAFILE"),
    (wrong_password, "KAFKA_AUTHENTICATION_FAILED", "THUMBLOOP_BUS__SASL_PASSWORD"),
    (unknown_user, "KAFKA_AUTHENTICATION_FAILED", "THUMBLOOP_BUS__SASL_USERNAME"),
    (wrong_mechanism, "KAFKA_SASL_MECHANISM", "THUMBLOOP_BUS__SASL_MECHANISM"),
    (no_user_at_all, "KAFKA_SASL_REQUIRED", "THUMBLOOP_BUS__SECURITY_PROTOCOL"),
    (plain_text_to_sasl, "KAFKA_SPEAKS_TLS", "THUMBLOOP_BUS__SECURITY_PROTOCOL"),
    (plain_text_to_mutual, "KAFKA_SPEAKS_TLS", "THUMBLOOP_BUS__SECURITY_PROTOCOL"),
    (tls_to_plain, "KAFKA_NO_TLS", "THUMBLOOP_BUS__SECURITY_PROTOCOL"),
    (no_client_certificate, "KAFKA_CLIENT_CERTIFICATE_REQUIRED", "THUMBLOOP_BUS__SSL_CERTFILE"),
    (strangers_certificate, "KAFKA_CLIENT_CERTIFICATE_REFUSED", "authority"),
    (missing_file, "KAFKA_CERTIFICATE_FILES", "THUMBLOOP_BUS__SSL_CAFILE"),
    (another_name, "KAFKA_HOSTNAME_MISMATCH", "name"),
]


@pytest.mark.parametrize(("wrong", "reason", "named"), WRONG, ids=[wrong.__name__ for wrong, _, _ in WRONG])
def test_each_wrong_thing_has_a_word_of_its_own(
    kafka: SecuredKafka, wrong: Callable[[SecuredKafka], dict[str, Any]], reason: str, named: str
) -> None:
    settings = secured(wrong(kafka))
    cause = diagnose(settings, security_options(settings))
    assert cause is not None
    assert (cause.reason, named in cause.message) == (reason, True), cause.message
    assert PASSWORD not in cause.message


def test_nothing_wrong_is_no_cause(kafka: SecuredKafka, plain: BusSettings) -> None:
    for settings in (secured(kafka.sasl()), secured(kafka.mutual()), plain):
        assert diagnose(settings, security_options(settings)) is None


def test_the_bus_says_it_wherever_it_connects(kafka: SecuredKafka) -> None:
    bus = open_bus(secured(no_client_certificate(kafka)))
    with pytest.raises(Unavailable) as refused:
        bus.ensure_topics(load_topic_pages().values())
    assert refused.value.reason == "KAFKA_CLIENT_CERTIFICATE_REQUIRED"
    with pytest.raises(Unavailable, match="asks for a client certificate"):
        bus.log_reader("reader").places(TOPIC)
    bus.close()


def test_the_publishers_refusal_carries_the_word(kafka: SecuredKafka) -> None:
    bus = open_bus(secured(wrong_password(kafka)))
    future = bus.publisher("writer").send(OutgoingEvent(topic=TOPIC, key="k", value=b"said"))
    with pytest.raises(Unavailable, match="does not accept user 'thumbloop'"):
        future.result(timeout=20)
    bus.close()
