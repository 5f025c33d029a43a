"""The copy of the snapshot on a room's disk, from which it starts while the learner is away."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from services.shared.access.snapshot import AccessSnapshot
from services.shared.telemetry.log import get_logger

_log = get_logger()


class SnapshotFile:
    """One file, private to its user (0600), replaced in one step: a reader sees the old copy or the new one, whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> AccessSnapshot | None:
        """None: there is none, or it is damaged (which is logged): then nobody is let in before the learner answers."""
        try:
            return AccessSnapshot.from_bytes(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("access_copy_unusable", path=str(self._path), error=str(error))
            return None

    def write(self, snapshot: AccessSnapshot) -> None:
        """Raises OSError where the disk refuses."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(snapshot.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
