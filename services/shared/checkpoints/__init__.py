"""Releases as files behind one URL: manifests, digests, create-if-absent."""

from services.shared.checkpoints.digests import base_model_digest, digests_of, file_digest
from services.shared.checkpoints.manifest import (
    MANIFEST_NAME,
    FileDigest,
    Manifest,
    content_digest,
    release_path,
)
from services.shared.checkpoints.store import PARTIAL_SUFFIX, CheckpointStore

__all__ = [
    "MANIFEST_NAME",
    "PARTIAL_SUFFIX",
    "CheckpointStore",
    "FileDigest",
    "Manifest",
    "base_model_digest",
    "content_digest",
    "digests_of",
    "file_digest",
    "release_path",
]
