"""What the gateway needs of a generator: a port, and its form over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio
from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc

from services.gateway.room_errors import RoomErrors
from services.shared.contracts.generation_values import (
    finish_reason_from_proto,
    message_to_proto,
    purpose_to_proto,
    sampling_to_proto,
    span_from_proto,
)
from services.shared.domain.errors import DeadlineExceeded, ThumbloopError, Unavailable
from services.shared.domain.rollout import ChatMessage, FinishReason, Purpose, Sampling, VersionSpan


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One response asked for. `rater_id` "": nobody may rate it."""

    rollout_id: str
    tenant: str
    conversation_id: str
    prompt_id: str
    group_id: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    rater_id: str
    recorded: bool
    traceparent: str


@dataclass(frozen=True, kw_only=True)
class Started:
    """Admitted; the version is the one that will draw the first token, as known now."""

    policy_version: str
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Delta:
    """New text, which is final."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The response ended; its rollout is durable."""

    finish_reason: FinishReason
    spans: tuple[VersionSpan, ...]
    response_tokens: int
    prompt_tokens: int


Part = Started | Delta | Finished


@dataclass(frozen=True, kw_only=True)
class GeneratorStatus:
    """`live_version` is "" while none is live."""

    live_version: str
    staging_version: str
    engine: str
    running: int
    waiting: int


class Generator(Protocol):
    """Draws responses from the live policy."""

    def generate(self, request: GenerationRequest, *, timeout_s: float) -> AsyncGenerator[Part, None]:
        """One Started, any number of Delta, one Finished. Closing the iterator cancels the response.

        Raises what the generator raised; Unavailable when it cannot be reached, DeadlineExceeded after `timeout_s`.
        """

    async def status(self, *, timeout_s: float) -> GeneratorStatus:
        """Raises Unavailable, DeadlineExceeded."""


class GrpcGenerator:
    """A generator behind a gRPC channel, which the caller owns."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        self._errors = RoomErrors("generator")

    async def generate(self, request: GenerationRequest, *, timeout_s: float) -> AsyncGenerator[Part, None]:
        """See Generator."""
        call = self._stub.Generate(_request_to_proto(request), timeout=timeout_s)
        finished = False
        try:
            async for response in call:
                part = _part_from_proto(response)
                finished = finished or isinstance(part, Finished)
                yield part
        except grpc.RpcError as error:
            raise _in_a_clients_words(self._errors.explained(error)) from error
        finally:
            call.cancel()  # without effect on a call that ended
        if not finished:
            raise Unavailable("The generator's stream ended early. Send the request again.", reason="STREAM_CUT")

    async def status(self, *, timeout_s: float) -> GeneratorStatus:
        """See Generator."""
        try:
            status = await self._stub.GetStatus(generator_pb2.GetStatusRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            raise _in_a_clients_words(self._errors.explained(error)) from error
        return GeneratorStatus(
            live_version=status.live_version,
            staging_version=status.staging_version,
            engine=status.capabilities.engine,
            running=status.running,
            waiting=status.waiting,
        )


def _request_to_proto(request: GenerationRequest) -> generator_pb2.GenerateRequest:
    return generator_pb2.GenerateRequest(
        rollout_id=request.rollout_id,
        tenant=request.tenant,
        conversation_id=request.conversation_id,
        prompt_id=request.prompt_id,
        group_id=request.group_id,
        purpose=purpose_to_proto(Purpose.USER),
        messages=[message_to_proto(message) for message in request.messages],
        sampling=sampling_to_proto(request.sampling),
        rater_id=request.rater_id,
        unrecorded=not request.recorded,
        traceparent=request.traceparent,
    )


def _part_from_proto(response: generator_pb2.GenerateResponse) -> Part:
    match response.WhichOneof("part"):
        case "started":
            started = response.started
            return Started(policy_version=started.policy_version, prompt_tokens=started.prompt_tokens)
        case "delta":
            return Delta(text=response.delta.text)
        case "finished":
            finished = response.finished
            return Finished(
                finish_reason=finish_reason_from_proto(finished.finish_reason),
                spans=tuple(span_from_proto(span) for span in finished.spans),
                response_tokens=len(finished.response_token_ids),
                prompt_tokens=finished.prompt_tokens,
            )
    raise ThumbloopError("The generator sent a part that this gateway does not know. Update the gateway.")


def _in_a_clients_words(known: ThumbloopError) -> ThumbloopError:
    """Unchanged, but for what the transport alone says, which would not help a client."""
    if isinstance(known, Unavailable) and known.reason in ("UNAVAILABLE", "CANCELLED"):
        return Unavailable("The generator is away for the moment. Try again.", reason="GENERATOR_UNAVAILABLE")
    if isinstance(known, DeadlineExceeded):
        return DeadlineExceeded("The answer was not ready in time. Ask for fewer tokens, or try again later.")
    return known
