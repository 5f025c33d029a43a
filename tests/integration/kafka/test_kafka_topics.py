"""Topics are made as their pages say.

Plan: the topics of all pages are made on Apache Kafka, and it is asked for their settings.
Pass: each, and each dead-letter topic, has the retention, the cleanup policy, the largest message and the partitions of
its page, and says how many replicas must have a write.
"""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.admin import ConfigFilterType, ConfigResource, ConfigResourceType

from services.shared.bus import kafka_topics
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.contracts.topics import TopicPage, dead_letter_topic, load_topic_pages
from services.shared.settings.model import BusSettings
from tests.support.brokers import bus_with_topics

PAGES = load_topic_pages()


def expected(page: TopicPage, *, room_for_reasons: int = 0) -> dict[str, str]:
    return {
        "retention.ms": str(page.retention_ms),
        "cleanup.policy": "delete",
        "max.message.bytes": str(page.max_message_bytes + room_for_reasons),
        "min.insync.replicas": "1",
    }


def test_topics_have_the_settings_of_their_pages(plain: BusSettings) -> None:
    bus_with_topics(plain, PAGES.values()).close()
    wanted = {plain.topic_prefix + name: expected(page) for name, page in PAGES.items()}
    partitions = {plain.topic_prefix + name: page.partitions for name, page in PAGES.items()}
    for name, page in PAGES.items():
        dead = plain.topic_prefix + dead_letter_topic(name)
        wanted[dead] = expected(page, room_for_reasons=kafka_topics.DEAD_LETTER_HEADROOM_BYTES)
        partitions[dead] = 1
    with KafkaConnection(plain).admin() as admin:
        assert settings_of(admin, wanted) == wanted
        assert {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(wanted))} == partitions


def settings_of(admin: KafkaAdminClient, wanted: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Of each topic, the settings that are asked about."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
    (found,) = admin.describe_configs(asked, config_filter=ConfigFilterType.ALL).values()
    return {name: {key: found[name][key]["value"] for key in wanted[name]} for name in wanted}
