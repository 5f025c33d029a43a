"""Releases as immutable folders of objects behind one URL (`file://`, `s3://`).

A release is written create-if-absent, its manifest last: without a manifest it is not there. The same bytes under the
same name again are welcome (a writer that repeats itself after a crash), other bytes are a Conflict. A reader gets a
folder only when every byte of it has been checked. Nothing is ever unpickled; files are safetensors and JSON.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import LocalStore, ObjectStore, S3Store

from services.shared.checkpoints.digests import digests_of, file_digest
from services.shared.checkpoints.manifest import MANIFEST_NAME, FileDigest, Manifest, check_relative
from services.shared.domain.errors import Conflict, Corrupt, InvalidInput, Misconfigured, NotFound, Unavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_CHUNK_BYTES = 4 * 1024 * 1024
_RETRY_AFTER_S = 1.0


class CheckpointStore:
    """Safe from any thread. Every call blocks; asyncio callers use `asyncio.to_thread`."""

    def __init__(self, url: str, s3: S3Config | None = None) -> None:
        """`url` is file:///FOLDER (made where missing) or s3://BUCKET/PREFIX, whose credentials and endpoint come from
        the usual AWS_* environment or from `s3`. Raises Misconfigured.
        """
        self.url = url
        self._root: Path | None = None
        self._store = self._open(url, s3)

    def put_release(self, path: str, files: Mapping[str, Path | bytes], manifest: Manifest) -> tuple[Manifest, str]:
        """Writes `files` by name and then the manifest, to which their digests are added; all durable on return.

        Gives the manifest as stored and its hex sha256. `manifest.files` is to be empty. Raises Conflict where other
        content is there, Unavailable, InvalidInput.
        """
        check_relative(path)
        if manifest.files:
            raise InvalidInput("`manifest.files` is filled in here; pass a manifest without files.", field="manifest")
        for name in files:
            check_relative(name)
            if name == MANIFEST_NAME:
                raise InvalidInput(f"{MANIFEST_NAME} is written by the store; give the file another name.", field=name)
        full = replace(manifest, files=digests_of(files))
        data = full.to_json()
        for name, source in files.items():
            self._create(f"{path}/{name}", source, full.files[name])
        digest = file_digest(data)
        self._create(f"{path}/{MANIFEST_NAME}", data, digest)
        return full, digest.sha256

    def read_manifest(self, path: str, manifest_sha256: str) -> Manifest:
        """Raises NotFound (no such release, or half-written), Corrupt (not the announced bytes), Unavailable."""
        return Manifest.from_json(self._read_manifest(path, manifest_sha256))

    def fetch(self, path: str, manifest_sha256: str, into: Path, names: Collection[str] | None = None) -> Manifest:
        """Makes the folder `into` hold the release's files and manifest.json, each checked before the folder appears.

        `names` restricts it to some files; those that the release lacks are left out (release 0 has no adapter). A
        folder that is already there is checked and kept, or replaced where it differs. Raises as `read_manifest`.
        """
        data = self._read_manifest(path, manifest_sha256)
        manifest = Manifest.from_json(data)
        wanted = {name: digest for name, digest in manifest.files.items() if names is None or name in names}
        if _holds(into, data, wanted):
            return manifest
        into.parent.mkdir(parents=True, exist_ok=True)
        partial = into.with_name(f".{into.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
        try:
            partial.mkdir()
            for name, digest in wanted.items():
                self._download(f"{path}/{name}", partial / name, digest)
            (partial / MANIFEST_NAME).write_bytes(data)
            shutil.rmtree(into, ignore_errors=True)
            partial.rename(into)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return manifest

    def _open(self, url: str, s3: S3Config | None) -> ObjectStore:
        parsed = urlparse(url)
        if parsed.scheme == "file" and parsed.path and not parsed.netloc:
            self._root = Path(unquote(parsed.path))
            with _translated(f"the folder of {url}"):
                return LocalStore(self._root, mkdir=True)
        if parsed.scheme == "s3" and parsed.netloc:
            try:
                client: ClientConfig = {"timeout": "30s", "connect_timeout": "5s"}
                if s3 and s3.get("endpoint", "").startswith("http://"):
                    client["allow_http"] = True
                return S3Store.from_url(
                    url,
                    config=s3,
                    client_options=client,
                    retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=15)},
                )
            except (obstore_errors.BaseError, ValueError) as error:
                raise Misconfigured(f"Cannot open the checkpoint store {url}: {error}", reason="BAD_URL") from error
        raise Misconfigured(
            f"{url!r} is no checkpoint store; `checkpoints.url` looks like file:///var/lib/thumbloop/checkpoints or "
            "s3://bucket/prefix.",
            reason="BAD_URL",
        )

    def _create(self, path: str, source: Path | bytes, digest: FileDigest) -> None:
        with _translated(path):
            try:
                obstore.put(self._store, path, source, mode="create")
            except obstore_errors.AlreadyExistsError as error:
                present = hashlib.sha256(obstore.get(self._store, path).bytes()).hexdigest()
                if present != digest.sha256:
                    raise Conflict(
                        f"{path} is there with other content (sha256 {present[:12]}, not {digest.sha256[:12]}). A "
                        "release is immutable; write another version.",
                        reason="RELEASE_EXISTS",
                    ) from error
        if self._root is not None:
            _sync(self._root, path)

    def _read_manifest(self, path: str, manifest_sha256: str) -> bytes:
        check_relative(path)
        with _translated(f"{path}/{MANIFEST_NAME}"):
            data = bytes(obstore.get(self._store, f"{path}/{MANIFEST_NAME}").bytes())
        found = hashlib.sha256(data).hexdigest()
        if found != manifest_sha256:
            raise Corrupt(
                f"The manifest of {path} has sha256 {found[:12]}, announced was {manifest_sha256[:12]}. The release "
                "was altered; put it back from a copy, or roll back.",
                reason="MANIFEST_ALTERED",
            )
        return data

    def _download(self, path: str, to: Path, digest: FileDigest) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256()
        size = 0
        try:
            with _translated(path), to.open("wb") as file:
                for chunk in obstore.get(self._store, path).stream(min_chunk_size=_CHUNK_BYTES):
                    view = memoryview(chunk)
                    sha256.update(view)
                    size += view.nbytes
                    file.write(view)
        except NotFound as error:
            raise Corrupt(f"{path} is missing, though its manifest names it.", reason="FILE_MISSING") from error
        if (sha256.hexdigest(), size) != (digest.sha256, digest.size):
            raise Corrupt(
                f"{path} has {size} bytes of sha256 {sha256.hexdigest()[:12]}; its manifest says {digest.size} of "
                f"{digest.sha256[:12]}. Put it back from a copy, or roll back.",
                reason="FILE_ALTERED",
            )


PARTIAL_SUFFIX = ".partial"
"""Ends the names of folders that a killed reader may have left; they may be removed when no reader runs."""


def _holds(folder: Path, manifest: bytes, files: Mapping[str, FileDigest]) -> bool:
    try:
        return (folder / MANIFEST_NAME).read_bytes() == manifest and all(
            file_digest(folder / name) == digest for name, digest in files.items()
        )
    except OSError:
        return False


def _sync(root: Path, path: str) -> None:
    """Makes a local file and the names that lead to it survive a power cut."""
    target = root / path
    for place in (target, *(parent for parent in target.parents if parent == root or root in parent.parents)):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """obstore's errors as ours."""
    try:
        yield
    except (obstore_errors.NotFoundError, FileNotFoundError) as error:
        raise NotFound(f"{what} is not in the checkpoint store.", reason="NO_SUCH_RELEASE") from error
    except (obstore_errors.PermissionDeniedError, obstore_errors.UnauthenticatedError, PermissionError) as error:
        raise Misconfigured(
            f"The checkpoint store refuses access to {what}: {error}. Check its credentials or the folder's owner.",
            reason="NO_ACCESS",
        ) from error
    except (obstore_errors.BaseError, OSError) as error:
        raise Unavailable(
            f"The checkpoint store failed at {what}: {error}", retry_after=_RETRY_AFTER_S, reason="CHECKPOINTS_AWAY"
        ) from error
