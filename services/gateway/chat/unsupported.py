"""Parameters of OpenAI's API that are not offered, and what to do instead.

A parameter whose value asks for nothing (null, an empty list, its own default) is let through: many clients always
send some. Anything else is refused by name rather than ignored, since a client would take silence for consent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.shared.domain.errors import InvalidInput, NotSupported

_LEAVE_OUT = "Leave it out."


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """`neutral` values are let through beside null."""

    neutral: tuple[Any, ...] = ()
    instead: str = _LEAVE_OUT


_TOOLS = "The model cannot call tools. Leave it out."
UNSUPPORTED: dict[str, Unsupported] = {
    "tools": Unsupported(neutral=([],), instead=_TOOLS),
    "tool_choice": Unsupported(neutral=("none", "auto"), instead=_TOOLS),
    "parallel_tool_calls": Unsupported(neutral=(True, False), instead=_TOOLS),
    "functions": Unsupported(neutral=([],), instead=_TOOLS),
    "function_call": Unsupported(neutral=("none", "auto"), instead=_TOOLS),
    "response_format": Unsupported(
        neutral=({"type": "text"},), instead='Leave it out or send {"type": "text"}, and ask for a format in a message.'
    ),
    "logit_bias": Unsupported(neutral=({},)),
    "logprobs": Unsupported(
        neutral=(False,), instead="Leave it out or send false; log-probs are in the `rollouts` events."
    ),
    "top_logprobs": Unsupported(neutral=(0,)),
    "presence_penalty": Unsupported(neutral=(0,), instead="Leave it out or send 0."),
    "frequency_penalty": Unsupported(neutral=(0,), instead="Leave it out or send 0."),
    "repetition_penalty": Unsupported(neutral=(1,), instead="Leave it out or send 1."),
    "top_k": Unsupported(neutral=(0, -1), instead="Leave it out, and use top_p."),
    "min_p": Unsupported(neutral=(0,), instead="Leave it out, and use top_p."),
    "modalities": Unsupported(neutral=(["text"], []), instead='Leave it out or send ["text"].'),
    "audio": Unsupported(),
    "prediction": Unsupported(),
    "moderation": Unsupported(),
    "reasoning_effort": Unsupported(neutral=("none",), instead="The model does not reason apart. Leave it out."),
    "verbosity": Unsupported(neutral=("medium",), instead="Say in a message how long the answer shall be."),
    "web_search_options": Unsupported(),
    "service_tier": Unsupported(neutral=("auto", "default"), instead='Leave it out or send "auto".'),
    "prompt_cache_options": Unsupported(),
    "continue_final_message": Unsupported(neutral=(False,), instead="End the conversation with a user's message."),
}

HARMLESS = frozenset({"prompt_cache_key", "prompt_cache_retention"})
"""Hints for a provider's caches; to ignore them changes no answer."""


def refuse_unsupported(others: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raises NotSupported for a parameter that is not offered, InvalidInput for one that nobody knows."""
    for name, value in others.items():
        if name in HARMLESS:
            continue
        rule = UNSUPPORTED.get(name)
        if rule is None:
            raise InvalidInput(
                f"Unknown parameter {name!r}. Known are: {', '.join(sorted(known))}.",
                reason="UNKNOWN_PARAMETER",
                field=name,
            )
        if value is not None and value not in rule.neutral:
            raise NotSupported(f"{name!r} is not supported. {rule.instead}", reason="UNSUPPORTED_PARAMETER", field=name)
