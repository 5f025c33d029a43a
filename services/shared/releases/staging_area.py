"""The folders of releases that a replica has downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from services.shared.checkpoints import PARTIAL_SUFFIX, Manifest
from services.shared.domain.errors import Corrupt
from services.shared.domain.release import Announcement


class ReleaseSource(Protocol):
    """Where releases come from; `services.shared.checkpoints.CheckpointStore` is one."""

    def fetch(self, path: str, manifest_sha256: str, into: Path, names: Collection[str] | None = None) -> Manifest:
        """Every file checked before `into` appears. Raises NotFound, Corrupt, Unavailable."""


class StagingArea:
    """One folder a version below `root`, which belongs to one follower of one process; at most `keep` of them."""

    def __init__(self, *, root: Path, source: ReleaseSource, names: Collection[str] | None, keep: int) -> None:
        self._root = root
        self._source = source
        self._names = names
        self._keep = keep

    def prepare(self) -> None:
        """Makes the root, and removes what a killed process left half-downloaded."""
        self._root.mkdir(parents=True, exist_ok=True)
        for partial in self._root.glob(f".*{PARTIAL_SUFFIX}"):
            shutil.rmtree(partial, ignore_errors=True)

    def fetch(self, announcement: Announcement) -> Path:
        """The announced release's folder, verified now. Raises as `ReleaseSource.fetch`."""
        folder = self._root / announcement.version
        manifest = self._source.fetch(
            announcement.checkpoint_path, announcement.manifest_sha256, folder, names=self._names
        )
        if (manifest.version, manifest.kind) != (announcement.version, announcement.kind):
            shutil.rmtree(folder, ignore_errors=True)
            raise Corrupt(
                f"{announcement.checkpoint_path} holds {manifest.kind} {manifest.version}, announced was "
                f"{announcement.kind} {announcement.version}. Announce the release's own path.",
                reason="OTHER_RELEASE",
            )
        os.utime(folder)
        return folder

    def prune(self, live_version: str) -> None:
        """Removes the folders used least recently beyond the bound; never the live version's."""
        folders = sorted(
            (folder for folder in self._root.iterdir() if folder.name != live_version),
            key=lambda folder: folder.stat().st_mtime_ns,
            reverse=True,
        )
        for folder in folders[self._keep - 1 :]:
            shutil.rmtree(folder, ignore_errors=True)
