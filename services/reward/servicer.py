"""gRPC `Score` and `GetStatus`: converts, asks the core, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
from thumbloop.reward.v1 import reward_pb2, reward_pb2_grpc, score_pb2
from thumbloop.shared.v1 import meta_pb2

from services.reward.base_model import Answer, BaseModel, PassResult, check
from services.reward.model_lane import ModelLane
from services.reward.resident_models import ResidentModels
from services.reward.scorer import NO_TOKENS, Judgement, Scorer
from services.shared.domain.errors import DeadlineExceeded, InvalidInput
from services.shared.domain.reward_terms import with_response_terms
from services.shared.domain.rollout import ChatMessage, Role
from services.shared.releases.follower import FollowerStatus
from services.shared.telemetry.metrics import Metrics

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MAX_ITEMS = 256
_ROLES = {
    # A turn without a role is taken for the user's, so that a client without our enums can score a text.
    meta_pb2.ROLE_UNSPECIFIED: Role.USER,
    meta_pb2.ROLE_SYSTEM: Role.SYSTEM,
    meta_pb2.ROLE_USER: Role.USER,
    meta_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """One item on its way: what is known of it before the pass."""

    rollout_id: str
    answer: Answer | None
    features: bytes
    text: str | None


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """Scores anyone's texts, tokens and features."""

    def __init__(
        self,
        base: BaseModel,
        lane: ModelLane,
        scorer: Scorer,
        models: ResidentModels,
        followed: Callable[[], FollowerStatus],
        metrics: Metrics,
        *,
        pass_timeout_s: float = 60.0,
    ) -> None:
        self._base = base
        self._lane = lane
        self._scorer = scorer
        self._models = models
        self._followed = followed
        self._metrics = metrics
        self._pass_timeout_s = pass_timeout_s

    async def Score(self, request: reward_pb2.ScoreRequest, context: Context) -> reward_pb2.ScoreResponse:
        """See the proto."""
        if not 1 <= len(request.items) <= MAX_ITEMS:
            raise InvalidInput(
                f"items: {len(request.items)} given, 1 to {MAX_ITEMS} allowed. Send the rest in another call.",
                reason="BAD_BATCH",
                field="items",
            )
        version, _ = self._models.get(request.reward_model_version)
        subjects = [self._subject(item, f"items[{index}]") for index, item in enumerate(request.items)]
        passes = await self._passes([subject.answer for subject in subjects if subject.answer], context)
        results = iter(passes)
        passed = [next(results) if subject.answer else None for subject in subjects]
        features = [done.features if done else subject.features for subject, done in zip(subjects, passed, strict=True)]
        rows = [row for row, vector in enumerate(features) if vector]
        judged = self._scorer.judge(
            [features[row] for row in rows], [subjects[row].rollout_id for row in rows], version=version
        )
        judgements = dict(zip(rows, judged.items, strict=True))
        self._metrics.increment("thumbloop_reward_scored_total", len(subjects), source="call")
        return reward_pb2.ScoreResponse(
            scores=[
                self._item_score(judgements.get(row, NO_TOKENS), subject.text, passed[row])
                for row, subject in enumerate(subjects)
            ],
            reward_model_version=judged.reward_model_version,
        )

    async def GetStatus(self, request: reward_pb2.GetStatusRequest, context: Context) -> reward_pb2.GetStatusResponse:
        """See the proto."""
        followed = self._followed()
        return reward_pb2.GetStatusResponse(
            live_version=self._models.live_version,
            epoch=followed.live.epoch if followed.live else 0,
            sequence=followed.live.sequence if followed.live else 0,
            resident_versions=self._models.versions,
            stage_error=followed.stage_error,
            base_model_digest=self._base.digest,
            feature_layout=self._base.feature_layout,
        )

    def _subject(self, item: reward_pb2.ScoreItem, name: str) -> _Subject:
        kind = item.WhichOneof("subject")
        if kind == "features":
            if not item.features:
                raise InvalidInput(
                    f"{name}.features is empty: send the features of an earlier score, or the text.",
                    reason="BAD_FEATURES",
                    field=f"{name}.features",
                )
            return _Subject(rollout_id=item.rollout_id, answer=None, features=item.features, text=None)
        if kind == "tokens":
            answer = Answer(
                prompt_token_ids=tuple(item.tokens.prompt_token_ids),
                response_token_ids=tuple(item.tokens.response_token_ids),
                temperature=item.tokens.temperature,
            )
            check(answer, self._base, name=f"{name}.tokens")
            return _Subject(rollout_id=item.rollout_id, answer=answer, features=b"", text=None)
        if kind == "text":
            return self._text(item, name)
        raise InvalidInput(
            f"{name} holds nothing to score: fill one of text, tokens, features.", reason="EMPTY_ITEM", field=name
        )

    def _text(self, item: reward_pb2.ScoreItem, name: str) -> _Subject:
        if not item.text.messages:
            raise InvalidInput(
                f"{name}.text.messages is empty: give at least the user's message that was answered.",
                reason="EMPTY_CONVERSATION",
                field=f"{name}.text.messages",
            )
        messages = [_message(turn, f"{name}.text.messages[{index}]") for index, turn in enumerate(item.text.messages)]
        answer: Answer | None = None
        if item.text.response:
            answer = self._base.encode(messages, item.text.response)
            check(answer, self._base, name=f"{name}.text")
        return _Subject(rollout_id=item.rollout_id, answer=answer, features=b"", text=item.text.response)

    async def _passes(self, answers: Sequence[Answer], context: Context) -> list[PassResult]:
        """One pass over what needs it. Raises Busy when the queue is full, DeadlineExceeded when it takes too long."""
        if not answers:
            return []
        remaining = context.time_remaining()
        timeout = min(self._pass_timeout_s, remaining if remaining is not None else self._pass_timeout_s)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._lane.try_submit(answers)), timeout)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no pass within {timeout:.1f} s; send fewer items a call", retry_after=1.0
            ) from None

    def _item_score(self, judgement: Judgement, text: str | None, done: PassResult | None) -> reward_pb2.ItemScore:
        terms = judgement.terms if text is None else with_response_terms(judgement.terms, text)
        return reward_pb2.ItemScore(
            mean=judgement.mean,
            spread=judgement.spread,
            terms=[score_pb2.RewardTerm(name=name, value=value) for name, value in terms],
            reference_log_probs=done.reference_log_probs if done else (),
            features=done.features if done else b"",
            feature_layout=self._base.feature_layout if done else "",
        )


def _message(turn: meta_pb2.ChatMessage, name: str) -> ChatMessage:
    role = _ROLES.get(turn.role)
    if role is None:
        raise InvalidInput(
            f"{name}.role {turn.role} is unknown: 1 system, 2 user, 3 assistant.", reason="BAD_ROLE", field=name
        )
    if not turn.content and role is not Role.ASSISTANT:
        raise InvalidInput(f"{name}.content is empty: say what was said.", reason="EMPTY_MESSAGE", field=name)
    return ChatMessage(role=role, content=turn.content)
