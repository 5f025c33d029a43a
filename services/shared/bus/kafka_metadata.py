"""What a consumer of kafka-python (3.0) knows of the cluster, asked for anew with a deadline.

The library's own ways, `topics()` and `partitions_for_topic()`, wait without one, silently, and for ever when its
refresh of metadata has ended. This module alone reaches into its metadata;
tests/contract/bus/test_bus_kafka_metadata.py holds the names to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def all_topics(consumer: Any, timeout_ms: int) -> Iterator[Any]:
    """The library's metadata of the cluster, which has every topic while the block runs, as of now or later.

    Raises KafkaError, KafkaTimeoutError when there is no answer in time (twice it, where an older question is open).
    """
    cluster = metadata(consumer)
    before, cluster.need_all_topic_metadata = cluster.need_all_topic_metadata, True
    try:
        if cluster.metadata_refresh_in_progress:  # it may have asked for fewer
            _refresh(consumer, cluster, timeout_ms)
        _refresh(consumer, cluster, timeout_ms)
        yield cluster
    finally:
        cluster.need_all_topic_metadata = before


def metadata(consumer: Any) -> Any:
    """As the consumer has it: kept up to date for the topics of its partitions."""
    return consumer._client.cluster


def _refresh(consumer: Any, cluster: Any, timeout_ms: int) -> None:
    client = consumer._client
    client._net.run(client._manager.wait_for, cluster.request_update(), timeout_ms)
