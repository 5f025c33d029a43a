"""A release's manifest: what it is, what it came from, and the digest of each of its files.

Its canonical JSON (sorted keys, no spaces, UTF-8, no NaN) is what is stored, and the sha256 of those bytes is what an
announcement names: whoever trusts the announcement can check every byte of the release. Ids only, never a user's text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from services.shared.domain.errors import Corrupt, InvalidInput
from services.shared.domain.release import ReleaseKind

MANIFEST_NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """Hex sha256 and length in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`files` by their names relative to the release's folder, e.g. "adapter.safetensors", "trainer/rng.json".

    `settings` holds JSON values; `metrics` finite numbers. `created_time` is timezone-aware.
    """

    version: str
    kind: ReleaseKind
    epoch: int
    number: int
    parent_version: str
    base_model_name: str
    base_model_digest: str
    files: Mapping[str, FileDigest] = field(default_factory=dict)
    rollout_ids: tuple[str, ...] = ()
    feedback_ids: tuple[str, ...] = ()
    reward_model_version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    created_time: datetime

    def to_json(self) -> bytes:
        """Canonical: equal manifests give equal bytes. Raises InvalidInput for what JSON cannot hold."""
        value = {
            "format": _FORMAT,
            **{name: getattr(self, name) for name in _PLAIN},
            "kind": str(self.kind),
            "files": {name: {"sha256": f.sha256, "size": f.size} for name, f in self.files.items()},
            "rollout_ids": list(self.rollout_ids),
            "feedback_ids": list(self.feedback_ids),
            "settings": dict(self.settings),
            "metrics": dict(self.metrics),
            "created_time": self.created_time.isoformat(),
        }
        try:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"The manifest of {self.version} cannot be written as JSON: {error}. Settings take JSON values, "
                "metrics finite numbers.",
                reason="BAD_MANIFEST",
            ) from error
        return text.encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Reads `to_json`'s bytes. Raises Corrupt for anything else, names that leave the folder included."""
        try:
            value = json.loads(data)
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']} is not {_FORMAT}")
            files = {
                name: FileDigest(sha256=str(f["sha256"]), size=int(f["size"])) for name, f in value["files"].items()
            }
            for name in files:
                check_relative(name)
            return cls(
                **{name: value[name] for name in _PLAIN},
                kind=ReleaseKind(value["kind"]),
                files=files,
                rollout_ids=tuple(value["rollout_ids"]),
                feedback_ids=tuple(value["feedback_ids"]),
                settings=value["settings"],
                metrics=value["metrics"],
                created_time=datetime.fromisoformat(value["created_time"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
            raise Corrupt(f"This is no release manifest: {error!r}.", reason="BAD_MANIFEST") from error


_PLAIN = (
    "version",
    "epoch",
    "number",
    "parent_version",
    "base_model_name",
    "base_model_digest",
    "reward_model_version",
)


def check_relative(name: str) -> None:
    """Raises InvalidInput for a path that is absolute, empty, or leaves its folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name or name == ".":
        raise InvalidInput(
            f"{name!r} is no plain relative path; one looks like policy/1/p-0001-000003-1a2b3c4d.", reason="BAD_PATH"
        )


def release_path(kind: ReleaseKind, *, epoch: int, version: str) -> str:
    """Folder of a release below the checkpoints URL: "{kind}/{epoch}/{version}"."""
    return f"{kind}/{epoch}/{version}"


def content_digest(files: Mapping[str, FileDigest]) -> str:
    """Hex sha256 over names and digests, whatever their order: names a version by what is in it."""
    canonical = json.dumps({name: f.sha256 for name, f in files.items()}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
