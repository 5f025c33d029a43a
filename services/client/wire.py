"""The public HTTP API as requests to build and responses to read; no input or output of its own.

The API is OpenAI's for chats; each choice carries a `thumbloop` object with what is needed to rate it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from services.client.answers import (
    Answer,
    AnswerFinished,
    AnswerPart,
    AnswerStarted,
    AnswerText,
    FeedbackFate,
    FeedbackReceipt,
    Span,
)
from services.shared.domain import errors
from services.shared.domain.errors import ThumbloopError
from services.shared.ids import new_id

CHAT_PATH = "/v1/chat/completions"
FEEDBACK_PATH = "/v1/feedback"
_DATA = "data:"
_DONE = "[DONE]"

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": "..."}"""


class ChatOptions(TypedDict, total=False):
    """What a chat request may ask for; what is left out, the gateway decides."""

    model: str
    temperature: float
    top_p: float
    max_tokens: int
    stop: Sequence[str]
    seed: int
    user: str
    conversation_id: str
    store: bool


_CLASSES: dict[int, type[ThumbloopError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    408: errors.Unavailable,
    409: errors.Conflict,
    413: errors.InvalidInput,
    422: errors.Unprocessable,
    429: errors.Busy,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}
_STATUSES_OF_TYPES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "rate_limit_error": 429,
}
"""For errors inside a stream, which have no status of their own."""


def chat_body(messages: str | Sequence[Message], options: ChatOptions, *, n: int, stream: bool) -> dict[str, Any]:
    """Body of a chat request. A string is one message of the user's."""
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
    body: dict[str, Any] = {"model": "thumbloop", **options, "messages": turns, "n": n, "stream": stream}
    conversation_id = body.pop("conversation_id", None)
    if conversation_id is not None:
        body["metadata"] = {"conversation_id": conversation_id}
    if "stop" in body:
        body["stop"] = list(body["stop"])
    return body


class StatementOptions(TypedDict, total=False):
    """What every kind of feedback may carry.

    `feedback_id`: your own id, 1 to 64 letters, digits and any of _ . : - ; sending the same again changes nothing.
    `revision`: the highest one of a kind holds; left out, it is the moment of acceptance in milliseconds since 1970.
    """

    feedback_id: str
    revision: int


def statement_body(token: str, kind: str, options: StatementOptions, **said: Any) -> dict[str, Any]:
    """Body of a feedback, with an id that makes sending it again safe. Raises InvalidInput where there is no token."""
    check_token(token)
    return {"token": token, "kind": kind, **said, **_named(options)}


def comparison_body(token: str, rejected_token: str, options: StatementOptions) -> dict[str, Any]:
    """Body of a comparison. Raises InvalidInput where a token is missing."""
    check_token(rejected_token)
    return statement_body(token, "comparison", options, rejected_token=rejected_token)


def check_token(token: str) -> None:
    """Raises InvalidInput for the token of an answer that may not be rated."""
    if not token:
        raise errors.InvalidInput(
            "This answer has no feedback token, so it cannot be rated. Ask without `store=False`.", field="token"
        )


def _named(options: StatementOptions) -> dict[str, Any]:
    named: dict[str, Any] = {"feedback_id": options.get("feedback_id") or new_id()}
    if options.get("revision") is not None:
        named["revision"] = options["revision"]
    return named


def feedback_headers(token: str) -> dict[str, str]:
    """Headers by which a feedback's state may be read."""
    return {"Authorization": f"Feedback {token}"}


def read_answers(body: Any) -> tuple[Answer, ...]:
    """Answers of a `chat.completion`."""
    return tuple(
        Answer(
            index=choice["index"],
            text=choice["message"]["content"],
            rollout_id=choice["thumbloop"]["rollout_id"],
            policy_version=choice["thumbloop"]["policy_version"],
            feedback_token=choice["thumbloop"].get("feedback_token") or "",
            finish_reason=choice["finish_reason"],
            spans=_spans(choice["thumbloop"]),
        )
        for choice in body["choices"]
    )


def read_receipt(body: Any) -> FeedbackReceipt:
    """Answer to a feedback."""
    return FeedbackReceipt(feedback_id=body["feedback_id"], state=body["state"], revision=body["revision"])


def read_fate(body: Any) -> FeedbackFate:
    """State of a feedback."""
    return FeedbackFate(
        feedback_id=body["feedback_id"],
        state=body["state"],
        reason=body["reason"],
        rollout_id=body["rollout_id"],
        kind=body["kind"],
        revision=body["revision"],
        trained_into=tuple(body["trained_into"]),
        trained_into_through_reward_model=tuple(body["trained_into_through_reward_model"]),
        reward_model_versions=tuple(body["reward_model_versions"]),
    )


class StreamReader:
    """Reads a stream line by line; `finish` tells a stream that ended from one that was cut."""

    def __init__(self) -> None:
        self._done = False

    def parts(self, line: str) -> Iterator[AnswerPart]:
        """What a line says; nothing for empty lines and comments. Raises the error that the stream carries."""
        if not line.startswith(_DATA):
            return
        data = line.removeprefix(_DATA).strip()
        if data == _DONE:
            self._done = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise stream_error(chunk)
        for choice in chunk["choices"]:
            yield from _choice_parts(choice)

    def finish(self) -> None:
        """At the end of the connection. Raises Unavailable for a stream that was cut."""
        if not self._done:
            raise errors.Unavailable("The stream was cut before its end. Ask again.", reason="STREAM_CUT")


def response_error(status: int, headers: Mapping[str, str], content: bytes) -> ThumbloopError:
    """The error in a response with a status of 400 or above."""
    try:
        detail = json.loads(content)["error"]
        message, code, field = str(detail["message"]), str(detail.get("code") or ""), str(detail.get("param") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code, field = f"HTTP {status} from something that is no Thumbloop gateway.", "", ""
    cls = _CLASSES.get(status, ThumbloopError)
    advice = _seconds(headers.get("retry-after", ""))
    return cls(message, reason=code.upper() or None, field=field, retry_after=advice)


def stream_error(chunk: Any) -> ThumbloopError:
    """The error that ends a stream."""
    status = _STATUSES_OF_TYPES.get(chunk["error"].get("type", ""), 503)
    return response_error(status, {}, json.dumps(chunk).encode())


def _seconds(text: str) -> float | None:
    """None: no time that one could wait. (A date is allowed there; no gateway sends one.)"""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _choice_parts(choice: Any) -> Iterator[AnswerPart]:
    index, details, finish_reason = choice["index"], choice.get("thumbloop"), choice.get("finish_reason")
    if details is not None and finish_reason is None:
        yield AnswerStarted(
            index=index,
            rollout_id=details["rollout_id"],
            policy_version=details["policy_version"],
            feedback_token=details.get("feedback_token") or "",
        )
    text = (choice.get("delta") or {}).get("content")
    if text:
        yield AnswerText(index=index, text=text)
    if finish_reason is not None:
        yield AnswerFinished(index=index, finish_reason=finish_reason, spans=_spans(details or {}))


def _spans(details: Mapping[str, Any]) -> tuple[Span, ...]:
    return tuple(
        Span(policy_version=span["policy_version"], begin=span["begin"], end=span["end"])
        for span in details.get("spans", ())
    )
