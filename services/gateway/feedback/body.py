"""Bodies of the feedback API: one model a kind, told apart by `kind`.

What holds for a body by itself is said here, so that the OpenAPI description says it too; what depends on the token,
the clock or the other fields (a value may be left out of a retraction alone) is in `statement.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, WrapValidator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from services.shared.contracts.feedback import MAX_COMMENT_CHARS, MAX_EDIT_CHARS

MAX_TOKEN_FIELD_CHARS = 4096
MAX_REVISION = 2**63 - 1
BAD_VALUE = "bad_value"
"""Type of pydantic's error for a value that is none of its kind's."""

FeedbackId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
Token = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOKEN_FIELD_CHARS)]

_TOKEN = "eyJhbGciOiJIUzI1NiIs..."


def _mended_by(words: str) -> WrapValidator:
    """Says in one sentence what a value may be, whichever way it is wrong."""

    def check(value: Any, validate: Any) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            raise PydanticCustomError(BAD_VALUE, words) from error

    return WrapValidator(check)


def _documented(**example: Any) -> ConfigDict:
    shown: JsonDict = {"example": {"token": _TOKEN, **example}}
    return ConfigDict(extra="forbid", json_schema_extra=shown)


THUMB_WORDS = 'The value of a thumb must be "up" or "down"'
RATING_WORDS = "The value of a rating must be a whole number from 1 (worst) to 5 (best)"
COMPARISON_WORDS = "A comparison needs 'rejected_token', the feedback_token of the answer that was not chosen"
EDIT_WORDS = f"An edit needs 'text', the answer as it should have been: 1 to {MAX_EDIT_CHARS} characters"
COMMENT_WORDS = f"A comment needs 'text' of 1 to {MAX_COMMENT_CHARS} characters"


class Statement(BaseModel):
    """What all kinds share."""

    model_config = ConfigDict(extra="forbid")

    token: Token = Field(description="The answer's `thumbloop.feedback_token`.")
    feedback_id: FeedbackId | None = Field(
        None,
        description="Your own id, so that sending again is safe: 1 to 64 letters, digits and any of _ . : - "
        "Left out: a new one.",
    )
    revision: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=MAX_REVISION,
        description="The highest wins. Left out: the accept time in milliseconds. At most five minutes ahead.",
    )
    retracted: bool = Field(
        False, strict=True, description="True takes back what was said of this kind; what is said may then be left out."
    )
    rollout_id: str | None = Field(
        None, max_length=64, description="If given, it must be the token's: guards against a mix-up in the client."
    )


class ThumbStatement(Statement):
    """Good or bad."""

    model_config = _documented(kind="thumb", value="up")

    kind: Literal["thumb"]
    value: Annotated[Literal["up", "down"] | None, _mended_by(THUMB_WORDS)] = Field(None, description="Up is good.")


class RatingStatement(Statement):
    """One to five stars."""

    model_config = _documented(kind="rating", value=4)

    kind: Literal["rating"]
    value: Annotated[Annotated[int, Field(strict=True, ge=1, le=5)] | None, _mended_by(RATING_WORDS)] = Field(
        None, description="5 is best."
    )


class ComparisonStatement(Statement):
    """This answer (`token`) is better than the other one to the same prompt (`rejected_token`).

    Two answers to one prompt come from one request with `n` of 2 or more, or from two requests of the same `user` with
    the same messages.
    """

    model_config = _documented(kind="comparison", rejected_token=_TOKEN)

    kind: Literal["comparison"]
    rejected_token: Annotated[Token | None, _mended_by(COMPARISON_WORDS)] = Field(
        None, description="The feedback token of the answer that was not chosen; of the same prompt and rater."
    )


class EditStatement(Statement):
    """The answer as it should have been."""

    model_config = _documented(kind="edit", text="Water it when the soil is dry to the touch.")

    kind: Literal["edit"]
    text: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_EDIT_CHARS)] | None, _mended_by(EDIT_WORDS)
    ] = Field(None, description="In place of the whole answer.")


class CommentStatement(Statement):
    """A remark on the answer."""

    model_config = _documented(kind="comment", text="Friendly, but too long.")

    kind: Literal["comment"]
    text: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_COMMENT_CHARS)] | None, _mended_by(COMMENT_WORDS)
    ] = Field(None, description="Anything that a person should read.")


AnyStatement = ThumbStatement | RatingStatement | ComparisonStatement | EditStatement | CommentStatement

FeedbackRequestBody = Annotated[AnyStatement, Field(discriminator="kind")]
"""The body of `POST /v1/feedback`."""


class FeedbackAnswerBody(BaseModel):
    """A durable statement."""

    feedback_id: str
    state: Literal["accepted", "spooled"] = Field(
        description="`accepted`: Kafka has it. `spooled`: this gateway's disk has it, and hands it to Kafka by itself."
    )
    revision: int


class FeedbackStateBody(BaseModel):
    """Where a statement is, and what learned from it."""

    feedback_id: str
    state: Literal[
        "accepted",
        "spooled",
        "waiting",
        "joined",
        "late",
        "superseded",
        "retracted",
        "orphaned",
        "quarantined",
        "rejected",
    ] = Field(
        description="`accepted`: Kafka has it; `spooled`: the gateway's disk has it; `waiting`: for the record of its "
        "answer; `joined`: with that record; `late`: joined too late for the policy, it trains the reward model; "
        "`superseded`: another statement holds the slot; `retracted`: it emptied the slot; `orphaned`: the record of "
        "its answer never came; `quarantined`: taken out of training; `rejected`: not usable."
    )
    reason: str = Field(description="Why it is so, and whether this kind is used in training; may be empty.")
    rollout_id: str
    kind: Literal["thumb", "rating", "comparison", "edit", "comment"]
    revision: int
    trained_into: list[str] = Field(description="Policies whose batch held the answer.")
    trained_into_through_reward_model: list[str] = Field(
        description="Policies scored by a reward model that was trained on it."
    )
    reward_model_versions: list[str] = Field(description="Reward models trained on it.")
