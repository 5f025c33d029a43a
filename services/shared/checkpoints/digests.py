"""sha256 of files and of a base model."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from services.shared.checkpoints.manifest import FileDigest
from services.shared.domain.errors import Misconfigured

_MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
"""What decides log-probs: weights, their configuration, and how text becomes tokens."""


def file_digest(source: Path | bytes) -> FileDigest:
    """Digest of a file, read once in pieces, or of bytes."""
    if isinstance(source, bytes):
        return FileDigest(sha256=hashlib.sha256(source).hexdigest(), size=len(source))
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(sha256=digest.hexdigest(), size=file.tell())


def digests_of(files: Mapping[str, Path | bytes]) -> dict[str, FileDigest]:
    """Digest of each, by name; see `manifest.content_digest`."""
    return {name: file_digest(source) for name, source in files.items()}


def base_model_digest(model_dir: str | Path, cache_file: Path | None = None) -> str:
    """Hex sha256 of a Hugging Face model folder: over the names and digests of weights, configuration and tokenizer.

    Digests are remembered by (path, size, modification time) in `cache_file` (default: in the user's cache), so that
    the weights are read once. Raises Misconfigured where the folder holds no safetensors.
    """
    folder = Path(model_dir).expanduser().resolve()
    paths = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in paths):
        raise Misconfigured(
            f"{folder} holds no *.safetensors. Name a folder written by `save_pretrained`, or run `make setup`, which "
            "converts the default model.",
            reason="NO_MODEL",
        )
    cache_path = cache_file or _default_cache_file()
    cache = _read_cache(cache_path)
    digests: dict[str, str] = {}
    fresh: dict[str, str] = {}
    for path in paths:
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in cache:
            fresh[key] = file_digest(path).sha256
        digests[path.name] = cache.get(key) or fresh[key]
    if fresh:
        _write_cache(cache_path, {**_read_cache(cache_path), **fresh})
    return hashlib.sha256(json.dumps(digests, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _default_cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thumbloop" / "digests.json"


def _read_cache(path: Path) -> dict[str, str]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):  # a cache: without it the files are read again
        return {}
    return value if isinstance(value, dict) else {}


def _write_cache(path: Path, cache: Mapping[str, str]) -> None:
    """Replaces the cache at once, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        json.dump(cache, file, sort_keys=True)
    Path(file.name).replace(path)
