"""Release 0 of each kind: where every lineage begins.

Of the policy it is the base model as it is, so its manifest names no adapter. Of the reward model it is heads that know
nothing. Both are written like any release, so readers need no special case.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.learner.ports import Candidate
from services.shared.checkpoints import CheckpointStore, Manifest, content_digest, digests_of, release_path
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind, version_id


def write_first_release(
    checkpoints: CheckpointStore,
    kind: ReleaseKind,
    files: Mapping[str, Path | bytes],
    *,
    epoch: int,
    base_model_name: str,
    base_model_digest: str,
    clock: Clock,
) -> Candidate:
    """Writes release 0 below the epoch's own path. Without files its version is named after the base model."""
    content = content_digest(digests_of(files)) if files else base_model_digest
    version = version_id(kind, epoch=epoch, number=0, content_sha256=content)
    path = release_path(kind, epoch=epoch, version=version)
    manifest = Manifest(
        version=version,
        kind=kind,
        epoch=epoch,
        number=0,
        parent_version="",
        base_model_name=base_model_name,
        base_model_digest=base_model_digest,
        created_time=clock(),
    )
    _, manifest_sha256 = checkpoints.put_release(path, files, manifest)
    return Candidate(
        version=version,
        kind=kind,
        epoch=epoch,
        number=0,
        parent_version="",
        checkpoint_path=path,
        manifest_sha256=manifest_sha256,
        base_model_digest=base_model_digest,
        reward_model_version="",
        rollout_ids=(),
        feedback_ids=(),
    )
