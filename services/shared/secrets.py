"""The deployment's keys: made at the first start, kept on disk, never shared between uses.

A *key ring* is a small JSON file with one or more keys of one use. The newest key signs and hashes; every key in the
file verifies, so that a key can be rotated by adding one and removing the old one when what it signed has expired.
Rings of keys that sign are followed while a room runs: `services.shared.followed_ring`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from services.shared.domain.errors import Misconfigured
from services.shared.domain.events import Clock

SECRET_BYTES = 32


class KeyUse(StrEnum):
    """What a key is for; also the name of its file."""

    FEEDBACK_TOKEN = "feedback-token"
    RATER = "rater-pseudonym"
    PROMPT = "prompt-id"
    CONVERSATION = "conversation-id"
    SERVICE = "service"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A secret with a name that may be told to anyone."""

    id: str
    secret: bytes = field(repr=False)
    created_time: datetime


@dataclass(frozen=True, kw_only=True)
class KeyRing:
    """The live keys of one use, newest first; at least one."""

    use: KeyUse
    keys: tuple[Key, ...]

    @property
    def newest(self) -> Key:
        """The key that signs and hashes."""
        return self.keys[0]

    @property
    def signing(self) -> Key:
        """The newest: this ring does not change."""
        return self.newest

    def by_id(self, key_id: str) -> Key | None:
        """The live key of that name."""
        return next((key for key in self.keys if key.id == key_id), None)


def load_or_create(folder: Path, use: KeyUse, clock: Clock) -> KeyRing:
    """Reads a key ring, or makes it with one key if there is none.

    Several gateways may start on one folder at the same time: the first to put its file in place wins, the others read
    it. Raises Misconfigured when the folder cannot be used or the file is damaged.
    """
    path = path_of(folder, use)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path, use, clock())
    except OSError as error:
        raise _unusable(folder, error) from error
    return load(folder, use)


def load(folder: Path, use: KeyUse) -> KeyRing:
    """Reads a key ring that is there. Raises Misconfigured as `load_or_create`."""
    try:
        return _read(path_of(folder, use), use)
    except OSError as error:
        raise _unusable(folder, error) from error


def path_of(folder: Path, use: KeyUse) -> Path:
    """Where a ring lies."""
    return folder / f"{use}.json"


def _unusable(folder: Path, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"The keys in {folder} cannot be used: {error}. Make the folder writable for this user, "
        "or set THUMBLOOP_DEPLOYMENT__SECRETS_DIR to another one."
    )


def _create(path: Path, use: KeyUse, now: datetime) -> None:
    """Puts a new file in place in one step: whoever looks sees no file or the whole file."""
    key = {
        "id": f"k{secrets.token_hex(4)}",
        "secret": base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
        "created_time": now.isoformat(),
    }
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{use}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"use": use, "keys": [key]}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike rename, fails if another gateway was first
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, use: KeyUse) -> KeyRing:
    """Parses and checks a key file."""
    try:
        document = json.loads(path.read_text())
        if document["use"] != use:
            raise ValueError(f"its use is {document['use']!r}")
        keys = [
            Key(
                id=str(entry["id"]),
                secret=base64.b64decode(entry["secret"], validate=True),
                created_time=datetime.fromisoformat(entry["created_time"]),
            )
            for entry in document["keys"]
        ]
        _check(keys)
        keys.sort(key=lambda key: key.created_time, reverse=True)
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"{path} is no key file for {use!r} ({error}). Restore it from a backup; if it is lost, delete it, and a "
            "new one is made (what the old one signed is then refused)."
        ) from error
    return KeyRing(use=use, keys=tuple(keys))


def _check(keys: list[Key]) -> None:
    """Raises ValueError for a ring that would be unsafe to use."""
    if not keys:
        raise ValueError("it holds no key")
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have one id")
    if any(len(key.secret) < SECRET_BYTES for key in keys):
        raise ValueError(f"a secret is shorter than {SECRET_BYTES} bytes")
    if zoneless := [key.id for key in keys if key.created_time.tzinfo is None]:
        raise ValueError(f"the created_time of {', '.join(zoneless)} has no time zone; write +00:00 for UTC")
