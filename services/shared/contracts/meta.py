"""What every event carries, to and from the wire."""

from __future__ import annotations

from thumbloop.shared.v1 import meta_pb2

from services.shared.contracts.checks import check_id, check_short
from services.shared.contracts.wire import time_from_proto, time_to_proto
from services.shared.domain.errors import InvalidInput
from services.shared.domain.events import SCHEMA_VERSION, EventMeta

READABLE_SCHEMA_VERSIONS = frozenset(version for version in (SCHEMA_VERSION - 1, SCHEMA_VERSION) if version >= 1)
"""Its own and the one before, so that rooms can be upgraded one after another."""


def check_meta(meta: EventMeta) -> None:
    """Raises InvalidInput for provenance that is not whole."""
    if meta.schema_version not in READABLE_SCHEMA_VERSIONS:
        known = ", ".join(map(str, sorted(READABLE_SCHEMA_VERSIONS)))
        raise InvalidInput(
            f"meta.schema_version is {meta.schema_version}; this release reads {known}. Upgrade the older side.",
            reason="SCHEMA_VERSION",
            field="meta.schema_version",
        )
    check_id("meta.event_id", meta.event_id)
    check_id("meta.deployment", meta.deployment)
    check_id("meta.tenant", meta.tenant)
    check_short("meta.traceparent", meta.traceparent)


def meta_to_proto(meta: EventMeta) -> meta_pb2.EventMeta:
    """Raises InvalidInput as `check_meta` does."""
    check_meta(meta)
    return meta_pb2.EventMeta(
        event_id=meta.event_id,
        deployment=meta.deployment,
        tenant=meta.tenant,
        event_time=time_to_proto("meta.event_time", meta.event_time),
        schema_version=meta.schema_version,
        traceparent=meta.traceparent,
    )


def meta_from_proto(message: meta_pb2.EventMeta, *, present: bool) -> EventMeta:
    """`present` says whether the event had a meta at all. Raises InvalidInput as `check_meta` does."""
    if not present:
        raise InvalidInput("meta is missing; every event carries it.", reason="MISSING_META", field="meta")
    if not message.HasField("event_time"):
        raise InvalidInput("meta.event_time is missing.", reason="MISSING_FIELD", field="meta.event_time")
    meta = EventMeta(
        event_id=message.event_id,
        deployment=message.deployment,
        tenant=message.tenant,
        event_time=time_from_proto("meta.event_time", message.event_time),
        schema_version=message.schema_version,
        traceparent=message.traceparent,
    )
    check_meta(meta)
    return meta
