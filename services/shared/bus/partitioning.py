"""Which partition a key goes to: the same for every producer of every language, so that one key keeps one order."""

from __future__ import annotations

from kafka.partitioner.default import murmur2


def partition_of(key: str, partitions: int) -> int:
    """Kafka's default: murmur2 of the key's UTF-8, sign bit cut off, modulo the number of partitions."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)
