"""Bodies of the feedback API."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

FeedbackId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]

_EXAMPLE: JsonDict = {"token": "eyJhbGciOiJIUzI1NiIs...", "kind": "thumb", "value": "up"}


class FeedbackRequestBody(BaseModel):
    """One statement on one answer."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    token: str = Field(min_length=1, max_length=4096, description="The answer's `thumbloop.feedback_token`.")
    kind: str = Field(description="`thumb`. More kinds will follow.")
    value: Any = Field(None, description="For a thumb `up` or `down`. May be left out of a retraction.")
    feedback_id: FeedbackId | None = Field(
        None,
        description="Your own id, so that sending again is safe: 1 to 64 letters, digits and any of _ . : - "
        "Left out: a new one.",
    )
    revision: int | None = Field(
        None,
        strict=True,
        ge=1,
        lt=2**63,
        description="The highest wins. Left out: the accept time in milliseconds. At most five minutes ahead.",
    )
    retracted: bool = Field(False, strict=True, description="True takes the statement back.")
    rollout_id: str | None = Field(
        None, max_length=64, description="If given, it must be the token's: guards against a mix-up in the client."
    )


class FeedbackAnswerBody(BaseModel):
    """A durable statement."""

    feedback_id: str
    state: str = Field(description="`accepted`: Kafka has it.")
    revision: int


class FeedbackStateBody(BaseModel):
    """Where a statement is, and what learned from it."""

    feedback_id: str
    state: str
    reason: str
    rollout_id: str
    kind: str
    revision: int
    trained_into: list[str] = Field(description="Policies whose batch held the answer.")
    trained_into_through_reward_model: list[str] = Field(
        description="Policies scored by a reward model that was trained on it."
    )
    reward_model_versions: list[str] = Field(description="Reward models trained on it.")
