"""Where the chat model lies on this machine: generator, reward and learner must all read the same files."""

from __future__ import annotations

import os
from pathlib import Path

from services.shared.domain.errors import Misconfigured
from services.shared.settings.model import ModelSettings

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"


def embedded_model_folder() -> Path:
    """The converted default model: `$XDG_CACHE_HOME/thumbloop/models/...`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "thumbloop" / "models" / EMBEDDED_MODEL


def model_folder(settings: ModelSettings) -> Path:
    """The folder that `model.path` means: itself, a hub model's snapshot (fetched once), or the embedded default.

    Raises Misconfigured where there is no model.
    """
    if not settings.path:
        return _existing(embedded_model_folder(), "Run `make setup`, which converts the default model once.")
    folder = Path(settings.path).expanduser()
    if folder.is_dir() or settings.path.startswith((".", "/", "~")):
        return _existing(folder, "Correct THUMBLOOP_MODEL__PATH, or unset it for the embedded default.")
    from huggingface_hub import snapshot_download  # Only here: a folder needs no hub.

    return Path(snapshot_download(settings.path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))


def _existing(folder: Path, mend: str) -> Path:
    if not (folder / "config.json").is_file():
        raise Misconfigured(f"{folder} holds no model (no config.json). {mend}", reason="NO_MODEL")
    return folder
