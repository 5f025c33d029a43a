"""What the OpenAPI description says of answers."""

from __future__ import annotations

from typing import Any

from services.gateway.errors import ErrorBody

_MEANINGS = {
    400: "The request is wrong; the message says how to mend it.",
    401: "No, an unknown, a revoked, an altered or an expired API key or feedback token.",
    403: "The key or token allows something else.",
    404: "No such thing.",
    408: "The body took too long to arrive.",
    409: "The same id was used with another content.",
    413: "The body is too large.",
    429: "Too many requests; come again after `Retry-After` seconds.",
    500: "Something went wrong inside.",
    503: "Something that this needs is away; come again after `Retry-After` seconds.",
    504: "The deadline passed.",
}

_THUMBLOOP = {
    "rollout_id": "0199c0de-0000-7000-8000-000000000001",
    "policy_version": "p-0001-000003-1a2b3c4d",
    "feedback_token": "eyJhbGciOiJIUzI1NiIs...",
    "conversation_id": "6f1f0c9a5b0e4d7f8a2b3c4d5e6f7081",
    "prompt_id": "0d4c6a1e9b7f4e2d8c5a3b1f0e9d8c7b",
    "kinds": ["thumb", "rating", "comparison", "edit", "comment"],
    "spans": [{"policy_version": "p-0001-000003-1a2b3c4d", "begin": 0, "end": 11, "kv_history": "fresh"}],
}

ANSWER_DOCUMENT: dict[str, Any] = {
    "description": "A `chat.completion`, or with `stream` a `chat.completion.chunk` an event, then `[DONE]`. In a "
    "stream, a choice's first chunk carries the `thumbloop` object without spans, its last one the spans.",
    "content": {
        "application/json": {
            "example": {
                "id": "chatcmpl-0199c0de-0000-7000-8000-000000000001",
                "object": "chat.completion",
                "created": 1764000000,
                "model": "thumbloop",
                "system_fingerprint": "p-0001-000003-1a2b3c4d",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Water it when the soil is dry."},
                        "logprobs": None,
                        "finish_reason": "stop",
                        "thumbloop": _THUMBLOOP,
                    }
                ],
                "usage": {"prompt_tokens": 38, "completion_tokens": 11, "total_tokens": 49},
            }
        },
        "text/event-stream": {"schema": {"type": "string"}},
    },
}


def error_documents(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of error answers."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}
