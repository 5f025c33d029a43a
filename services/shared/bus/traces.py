"""Whose event is this? Asked of bytes that may not be readable.

An event that decodes says whose it is. Of any other record the bytes are searched: for a pseudonym as it stands, and
for rollout ids, which are UUIDs. Protobuf keeps text as it is, so a cut or garbled event still shows them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from services.shared.bus.interface import Record

_UUID = re.compile(rb"(?=([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}))")
_HASH = re.compile(rb"(?=([0-9a-f]{32}))")
"""Looked for at every place: what stands before or after an id in the bytes may look like a part of it."""


UUID_CHARS = 36


class Traces:
    """What gives a person away."""

    def __init__(self, *, rater_ids: Collection[str], rollout_ids: Collection[str]) -> None:
        self._raters = tuple(one.encode() for one in rater_ids)
        self._rollouts = frozenset(one.encode() for one in rollout_ids)

    def are_in(self, record: Record) -> bool:
        """Whether the record's key, bytes or headers name the person or one of their rollouts."""
        return any(self._are_in(part) for part in (record.key.encode(), record.value, *record.headers.values()))

    def _are_in(self, data: bytes) -> bool:
        if any(rater in data for rater in self._raters):
            return True
        return data in self._rollouts or not self._rollouts.isdisjoint(_UUID.findall(data))


def is_rollout_id(text: str) -> bool:
    """Whether it has the form of one."""
    return len(text) == UUID_CHARS and _UUID.match(text.encode()) is not None


def ids_in(record: Record) -> set[str]:
    """All ids that stand in a record's key and bytes and look like a pseudonym or a rollout's."""
    data = record.key.encode() + b"\n" + record.value
    return {match.decode() for pattern in (_UUID, _HASH) for match in pattern.findall(data)} | {record.key}
