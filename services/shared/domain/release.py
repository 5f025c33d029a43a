"""A release: an immutable, checksummed, published version of the policy or of a reward model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from services.shared.domain.errors import InvalidInput
from services.shared.domain.events import EventMeta


class ReleaseKind(StrEnum):
    """What a release is of."""

    POLICY = "policy"
    REWARD_MODEL = "reward_model"


class ReleaseState(StrEnum):
    """Life of a release: committed → published → (rolled_back); or refused by the gate."""

    COMMITTED = "committed"
    PUBLISHED = "published"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


class AnnouncementReason(StrEnum):
    """Why a version was announced."""

    RELEASE = "release"
    ROLLBACK = "rollback"
    REPEAT = "repeat"


_PREFIXES = {ReleaseKind.POLICY: "p", ReleaseKind.REWARD_MODEL: "rm"}
_VERSION = re.compile(r"^(p|rm)-(\d{4,})-(\d{6,})-([0-9a-f]{8})$")


def version_id(kind: ReleaseKind, *, epoch: int, number: int, content_sha256: str) -> str:
    """Id of a release, e.g. "p-0001-000003-1a2b3c4d": kind, epoch, number within the kind, digest of its content."""
    return f"{_PREFIXES[kind]}-{epoch:04d}-{number:06d}-{content_sha256[:8]}"


def version_number(version: str) -> int:
    """The number in a version id. Raises InvalidInput for anything else."""
    match = _VERSION.match(version)
    if match is None:
        raise InvalidInput(
            f"{version!r} is no version id; one looks like p-0001-000003-1a2b3c4d. See `thumbloop policies list`.",
            reason="BAD_VERSION",
        )
    return int(match.group(3))


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """A version is live. A reader applies the greatest (epoch, sequence) of a kind; anything lower changes nothing."""

    meta: EventMeta
    kind: ReleaseKind
    epoch: int
    sequence: int
    version: str
    parent_version: str
    checkpoint_path: str
    manifest_sha256: str
    base_model_digest: str
    reason: AnnouncementReason

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, sequence)."""
        return (self.epoch, self.sequence)

    @property
    def key(self) -> str:
        """The event's key."""
        return f"{self.kind}/{self.epoch}/{self.sequence}"
