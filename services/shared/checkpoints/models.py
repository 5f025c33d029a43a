"""Where the chat model lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from services.shared.domain.errors import Misconfigured
from services.shared.settings.model import ModelSettings

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"


def embedded_model_dir() -> Path:
    """Where the embedded default is converted to and looked for."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "thumbloop" / "models" / EMBEDDED_MODEL


def resolve_model(settings: ModelSettings) -> Path:
    """The folder of the chat model: `model.path`, a hub id that is in the local Hugging Face cache, or the default.

    Downloads nothing. Raises Misconfigured, saying how to get the model, where there is none.
    """
    if not settings.path:
        return _checked(
            embedded_model_dir(), "Make it once with `python -m services.embedded.chat_model`, or set model.path."
        )
    folder = Path(settings.path).expanduser()
    if folder.is_dir():
        return _checked(folder, "Set model.path (THUMBLOOP_MODEL__PATH) to the folder of a Hugging Face causal LM.")
    return _from_hub_cache(settings.path)


def _checked(folder: Path, mend: str) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise Misconfigured(
            f"{folder} holds no chat model (config.json and *.safetensors). {mend}", reason="MODEL_MISSING"
        )
    return folder


def _from_hub_cache(name: str) -> Path:
    mend = f"Correct model.path (THUMBLOOP_MODEL__PATH), or fetch the model first: `hf download {name}`."
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise Misconfigured(f"{name} is no folder. {mend}", reason="MODEL_MISSING") from error
    try:
        return _checked(Path(snapshot_download(name, local_files_only=True)), mend)
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"{name} is neither a folder nor a model in the local Hugging Face cache. {mend}", reason="MODEL_MISSING"
        ) from error
