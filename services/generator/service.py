"""gRPC edge: converts, calls, converts back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc

from services.generator.access import check_said_by
from services.generator.admission import Admission
from services.generator.engines.interface import Engine
from services.generator.generation import Delta, Finished, GenerationRequest, Part, Started
from services.generator.sessions import Sessions
from services.shared.contracts.generation_values import kv_history_to_proto
from services.shared.contracts.rollouts import (
    finish_reason_to_proto,
    message_from_proto,
    purpose_from_proto,
    sampling_from_proto,
    span_to_proto,
)
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import FinishReason
from services.shared.releases.follower import FollowerStatus

ROUNDED_UP = 0.01
"""By so large a share, at most, the deadline that gRPC sends is longer than the client's."""
ON_THE_WAY_S = 0.1


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """What raises becomes a rich status in the server's interceptor."""

    def __init__(
        self, *, sessions: Sessions, engine: Engine, admission: Admission, follower: Callable[[], FollowerStatus]
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._admission = admission
        self._follower = follower

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        """See generator.proto."""
        check_said_by(request)
        remaining_s = context.time_remaining()
        ends = time.monotonic() + (float("inf") if remaining_s is None else _client_patience_s(remaining_s))
        session = self._sessions.open(request_from_proto(request), remaining_s=remaining_s)
        try:
            async for part in session.parts():
                yield part_to_proto(part)
        finally:
            session.abandon(FinishReason.DEADLINE if time.monotonic() >= ends else FinishReason.CANCELLED)

    async def GetStatus(self, request: generator_pb2.GetStatusRequest, context: Any) -> generator_pb2.GetStatusResponse:
        """See generator.proto."""
        status, engine = self._follower(), self._engine
        capabilities = engine.capabilities
        return generator_pb2.GetStatusResponse(
            live_version=engine.live_version,
            epoch=status.live.epoch if status.live else 0,
            sequence=status.live.sequence if status.live else 0,
            resident_versions=[engine.live_version] if engine.live_version else [],
            staging_version=status.staging_version,
            stage_error=status.stage_error,
            capabilities=generator_pb2.EngineCapabilities(
                engine=capabilities.engine,
                resident_versions=capabilities.resident_versions,
                kv_at_flip=kv_history_to_proto(capabilities.kv_at_flip),
                raw_log_probs=capabilities.raw_log_probs,
                context_tokens=capabilities.context_tokens,
            ),
            running=self._admission.running,
            waiting=self._admission.waiting,
            base_model_digest=engine.base_model_digest,
        )


def request_from_proto(request: generator_pb2.GenerateRequest) -> GenerationRequest:
    """Raises InvalidInput, naming the field."""
    if not request.HasField("sampling"):
        raise InvalidInput(
            "sampling is missing; send temperature, top_p and max_tokens.", reason="MISSING_FIELD", field="sampling"
        )
    return GenerationRequest(
        rollout_id=request.rollout_id,
        tenant=request.tenant,
        conversation_id=request.conversation_id,
        prompt_id=request.prompt_id,
        group_id=request.group_id,
        purpose=purpose_from_proto(request.purpose),
        messages=tuple(map(message_from_proto, request.messages)),
        sampling=sampling_from_proto(request.sampling),
        rater_id=request.rater_id,
        canary_id=request.canary_id,
        required_version=request.required_version,
        recorded=not request.unrecorded,
        traceparent=request.traceparent,
    )


def part_to_proto(part: Part) -> generator_pb2.GenerateResponse:
    """A part of the stream."""
    if isinstance(part, Started):
        return generator_pb2.GenerateResponse(
            started=generator_pb2.GenerationStarted(
                rollout_id=part.rollout_id, policy_version=part.policy_version, prompt_tokens=part.prompt_tokens
            )
        )
    if isinstance(part, Delta):
        return generator_pb2.GenerateResponse(
            delta=generator_pb2.GenerationDelta(text=part.text, response_tokens=part.response_tokens)
        )
    return generator_pb2.GenerateResponse(finished=_finished_to_proto(part))


def _finished_to_proto(part: Finished) -> generator_pb2.GenerationFinished:
    return generator_pb2.GenerationFinished(
        finish_reason=finish_reason_to_proto(part.finish_reason),
        spans=[span_to_proto(span) for span in part.spans],
        response_token_ids=part.response_token_ids,
        behaviour_log_probs=part.behaviour_log_probs,
        prompt_tokens=part.prompt_tokens,
    )


def _client_patience_s(remaining_s: float) -> float:
    """How long the client waits at the least, in seconds from now: a cancellation that comes later is its deadline.

    It counts from before the request was sent, and up to a deadline that was not rounded.
    """
    return remaining_s * (1 - ROUNDED_UP) - ON_THE_WAY_S
