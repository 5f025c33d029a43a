"""The chat template and the tokenizer of a Hugging Face model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.shared.domain.errors import Misconfigured
from services.shared.domain.rollout import ChatMessage

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")


class HuggingFaceTokenizer:
    """See `ChatTokenizer`. Belongs to one thread: the library's tokenizers keep state."""

    def __init__(self, folder: Path) -> None:
        """Raises Misconfigured where the folder has no tokenizer or no chat template."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"{folder} holds no tokenizer: {error}. Set model.path to a chat model's folder."
            ) from error
        template = self._tokenizer.chat_template
        if not isinstance(template, str) or not template:
            raise Misconfigured(
                f"The tokenizer in {folder} has no chat template; use an instruction-tuned model, or add "
                "chat_template.jinja to the folder."
            )
        self.template_digest = hashlib.sha256(template.encode()).hexdigest()
        self.tokenizer_digest = _digest(folder)
        self.control_texts: tuple[str, ...] = tuple(self._tokenizer.all_special_tokens)

    def render(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """See `ChatTokenizer`."""
        chat = [{"role": str(message.role), "content": message.content} for message in messages]
        ids = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
        return tuple(int(token) for token in ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ChatTokenizer`."""
        return str(
            self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


def _digest(folder: Path) -> str:
    sha256 = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            sha256.update(name.encode() + b"\0" + path.read_bytes())
    return sha256.hexdigest()
