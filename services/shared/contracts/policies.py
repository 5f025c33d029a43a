"""Announcements of releases, to and from the wire."""

from __future__ import annotations

from pathlib import PurePosixPath

from thumbloop.learner.v1 import policy_pb2

from services.shared.contracts.checks import check_id, check_integer, check_sha256, check_short
from services.shared.contracts.meta import meta_from_proto, meta_to_proto
from services.shared.contracts.wire import EnumMap, decode, encode
from services.shared.domain.errors import InvalidInput
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind

KINDS: EnumMap[ReleaseKind, policy_pb2.ReleaseKind.ValueType] = EnumMap(
    ReleaseKind, policy_pb2.ReleaseKind, "RELEASE_KIND"
)
REASONS: EnumMap[AnnouncementReason, policy_pb2.AnnouncementReason.ValueType] = EnumMap(
    AnnouncementReason, policy_pb2.AnnouncementReason, "ANNOUNCEMENT_REASON"
)


def encode_announcement(announcement: Announcement) -> bytes:
    """Event bytes. Raises InvalidInput for an announcement that `check_announcement` refuses."""
    return encode(announcement, announcement_to_proto)


def decode_announcement(data: bytes) -> Announcement:
    """The announcement in an event. Raises Unprocessable with the broken rule's reason."""
    return decode(data, policy_pb2.PolicyAnnouncement, announcement_from_proto)


def release_kind_to_proto(kind: ReleaseKind) -> policy_pb2.ReleaseKind.ValueType:
    """The wire's number."""
    return KINDS.to_proto(kind)


def release_kind_from_proto(value: policy_pb2.ReleaseKind.ValueType, field: str = "kind") -> ReleaseKind:
    """Raises InvalidInput for an unknown one."""
    return KINDS.from_proto(value, field)


def check_announcement(announcement: Announcement) -> None:
    """Raises InvalidInput unless the release can be found below the checkpoints URL and verified."""
    check_id("version", announcement.version)
    check_short("parent_version", announcement.parent_version)
    check_short("base_model_digest", announcement.base_model_digest)
    check_integer("epoch", announcement.epoch)
    check_integer("sequence", announcement.sequence)
    check_sha256("manifest_sha256", announcement.manifest_sha256)
    check_id("checkpoint_path", announcement.checkpoint_path)
    path = PurePosixPath(announcement.checkpoint_path)
    if path.is_absolute() or ".." in path.parts or "\\" in announcement.checkpoint_path:
        raise InvalidInput(
            f"checkpoint_path {announcement.checkpoint_path!r} leaves the checkpoints folder; give one below it.",
            reason="BAD_PATH",
            field="checkpoint_path",
        )


def announcement_to_proto(announcement: Announcement) -> policy_pb2.PolicyAnnouncement:
    """Raises InvalidInput as `check_announcement` does."""
    check_announcement(announcement)
    return policy_pb2.PolicyAnnouncement(
        meta=meta_to_proto(announcement.meta),
        kind=release_kind_to_proto(announcement.kind),
        epoch=announcement.epoch,
        sequence=announcement.sequence,
        version=announcement.version,
        parent_version=announcement.parent_version,
        checkpoint_path=announcement.checkpoint_path,
        manifest_sha256=announcement.manifest_sha256,
        base_model_digest=announcement.base_model_digest,
        reason=REASONS.to_proto(announcement.reason),
    )


def announcement_from_proto(message: policy_pb2.PolicyAnnouncement) -> Announcement:
    """Raises InvalidInput as `check_announcement` does."""
    announcement = Announcement(
        meta=meta_from_proto(message.meta, present=message.HasField("meta")),
        kind=release_kind_from_proto(message.kind),
        epoch=message.epoch,
        sequence=message.sequence,
        version=message.version,
        parent_version=message.parent_version,
        checkpoint_path=message.checkpoint_path,
        manifest_sha256=message.manifest_sha256,
        base_model_digest=message.base_model_digest,
        reason=REASONS.from_proto(message.reason, "reason"),
    )
    check_announcement(announcement)
    return announcement
