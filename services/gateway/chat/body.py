"""The body of `POST /v1/chat/completions`, as OpenAI's clients send it.

Only shapes and bounds that hold for every installation are checked here; what depends on settings, and how messages
become a conversation, is in `request.py`. Parameters outside this model are dealt with in `unsupported.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from services.gateway.identity import MAX_USER_CHARS

UserName = Annotated[str, StringConstraints(max_length=MAX_USER_CHARS)]
ModelName = Annotated[str, StringConstraints(max_length=512)]

_EXAMPLE: JsonDict = {
    "model": "thumbloop",
    "messages": [{"role": "user", "content": "How do I keep a houseplant alive?"}],
    "temperature": 0.8,
    "max_tokens": 64,
    "user": "alice",
}


class TextPart(BaseModel):
    """A part of a message's content; text is the only type."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class MessageBody(BaseModel):
    """One turn. What else an assistant's turn may carry (an echoed answer) is checked in `request.py`."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(description="`system` (or `developer`; at most one, first), `user` or `assistant`.")
    content: str | list[TextPart] | None = Field(
        None, description="Text, or a list of text parts. May be empty for the assistant alone."
    )


class StreamOptions(BaseModel):
    """How a stream is sent."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = Field(None, strict=True, description="Adds a last chunk that holds the token counts.")
    include_obfuscation: bool | None = Field(None, description="Accepted, without effect.")


class ChatBody(BaseModel):
    """A chat request."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _EXAMPLE})

    model: ModelName = Field(description="Name of the model; `GET /v1/models` lists it.")
    messages: list[MessageBody] = Field(description="The conversation; the last message is the user's.")
    temperature: float | None = Field(
        None, strict=True, ge=0, le=2, description="0 takes the likeliest token. Default 1."
    )
    top_p: float | None = Field(None, strict=True, gt=0, le=1, description="Nucleus sampling. Default 1: off.")
    max_tokens: int | None = Field(None, strict=True, ge=1, description="Most tokens of an answer.")
    max_completion_tokens: int | None = Field(None, strict=True, ge=1, description="Newer name of `max_tokens`.")
    n: int | None = Field(None, strict=True, ge=1, description="Answers to the same prompt. Default 1.")
    stop: str | list[str] | None = Field(None, description="Up to 4 texts before which an answer ends.")
    seed: int | None = Field(
        None, strict=True, ge=0, lt=2**63, description="Where the engine can: the same draw again."
    )
    stream: bool | None = Field(None, strict=True, description="Answer by server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")
    user: UserName | None = Field(None, description="Your id of the person; stored as a keyed hash alone.")
    safety_identifier: UserName | None = Field(None, description="Newer name of `user`.")
    metadata: dict[str, str] | None = Field(
        None, description="`conversation_id` (up to 128 characters) names the conversation. Other entries are ignored."
    )
    store: bool | None = Field(
        None, strict=True, description="False: nothing is recorded, and the answer cannot be rated. Absent means true."
    )

    @property
    def others(self) -> dict[str, Any]:
        """Parameters outside this model."""
        return self.model_extra or {}
