"""One owner for each folder: two gateways that drain one spool would send everything twice and delete blindly."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from services.shared.domain.errors import Misconfigured

LOCK_NAME = "owner.lock"
_CHOOSE = "Stop that process, or give each gateway a folder of its own by THUMBLOOP_GATEWAY__SPOOL__DIRECTORY."


class FolderOwnership:
    """Held from construction to `release`, or to the end of the process, however it ends (flock)."""

    def __init__(self, folder: Path) -> None:
        """Raises Misconfigured where the folder cannot be written, or another process owns it."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(
                f"The spool's folder {folder} cannot be used: {error.strerror}. Make it writable for this user, set"
                " THUMBLOOP_GATEWAY__SPOOL__DIRECTORY to another, or do without by THUMBLOOP_GATEWAY__SPOOL__ENABLED=0"
            ) from error
        self._held = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise Misconfigured(
                f"The spool's folder {folder} belongs to another running gateway (process {owner}). {_CHOOSE}",
                reason="SPOOL_OWNED",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Twice is once."""
        if self._held:
            self._held = False
            os.close(self._descriptor)
