"""Creates topics from their pages, and deletes records from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    AuthorizationError,
    InvalidTopicError,
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    UnsupportedVersionError,
    for_code,
)

from services.shared.bus.interface import Place
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.contracts.topics import TopicPage, dead_letter_topic
from services.shared.domain.errors import NotSupported, Unavailable

DEAD_LETTER_HEADROOM_BYTES = 65_536
"""A dead letter is the event as it was, plus headers that say why."""
TIMEOUT_MS = 15_000


def ensure_topics(connection: KafkaConnection, pages: Iterable[TopicPage]) -> None:
    """Creates what is missing and waits until it can be written to. Raises Unavailable."""
    wanted = {connection.full_name(page.name): page for page in _with_dead_letters(pages)}
    with connection.admin() as admin:
        try:
            missing = set(wanted) - set(admin.list_topics())
            if missing:
                _create(connection, admin, {name: _options(connection, wanted[name]) for name in missing})
        except KafkaError as error:
            raise connection.unavailable("creating topics", error) from error


def delete_records(connection: KafkaConnection, before: Mapping[Place, int]) -> None:
    """See `Bus.delete_records`."""
    wanted = {
        TopicPartition(connection.full_name(place.topic), place.partition): offset for place, offset in before.items()
    }
    with connection.admin() as admin:
        try:
            admin.delete_records(wanted, timeout_ms=TIMEOUT_MS)
        except (UnsupportedVersionError, InvalidTopicError, PolicyViolationError, AuthorizationError) as error:
            raise NotSupported(
                f"Kafka at {connection.settings.bootstrap_servers} does not let records be deleted from "
                f"{', '.join(sorted({place.topic for place in before}))} ({type(error).__name__}: {error}); they stay "
                "until their retention has passed. Allow DeleteRecords, or delete the topic by hand.",
                reason="RECORDS_NOT_DELETABLE",
            ) from error
        except KafkaError as error:
            raise connection.unavailable("deleting records", error) from error


def _with_dead_letters(pages: Iterable[TopicPage]) -> list[TopicPage]:
    """The pages, each followed by its dead-letter topic's."""
    result = []
    for page in pages:
        result.append(page)
        if page.dead_letter:
            result.append(
                replace(
                    page,
                    name=dead_letter_topic(page.name),
                    partitions=1,
                    max_message_bytes=page.max_message_bytes + DEAD_LETTER_HEADROOM_BYTES,
                )
            )
    return result


def _options(connection: KafkaConnection, page: TopicPage) -> dict[str, Any]:
    replicas = connection.settings.replication_factor
    return {
        "num_partitions": page.partitions,
        "replication_factor": replicas,
        "configs": {
            "cleanup.policy": "delete",
            "retention.ms": str(page.retention_ms),
            "max.message.bytes": str(page.max_message_bytes),
            # One replica may be away without a loss and without a stop.
            "min.insync.replicas": str(max(1, replicas - 1)),
        },
    }


def _create(connection: KafkaConnection, admin: Any, topics: dict[str, dict[str, Any]]) -> None:
    """Another process may create the same at the same time, which is as good."""
    result = admin.create_topics(topics, timeout_ms=TIMEOUT_MS, raise_errors=False)
    for topic in result["topics"]:
        error = for_code(topic["error_code"])
        if topic["error_code"] and error is not TopicAlreadyExistsError:
            raise Unavailable(
                f"Kafka at {connection.settings.bootstrap_servers} did not create topic {topic['name']}: "
                f"{error.__name__} {topic.get('error_message') or ''}. Check THUMBLOOP_BUS__REPLICATION_FACTOR "
                f"({connection.settings.replication_factor}) against the number of brokers, and the rights to create.",
                reason="TOPIC_NOT_CREATED",
                retry_after=1.0,
            )
    admin.wait_for_topics(list(topics))
