"""Makes the gateway's parts and joins them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
from fastapi import APIRouter

from services.gateway.app import control_app, public_app
from services.gateway.chat.admission import Admission
from services.gateway.chat.choice import ChoiceDrawer
from services.gateway.chat.generation import GrpcGenerator
from services.gateway.chat.request import ChatLimits
from services.gateway.chat.routes import chat_router
from services.gateway.chat.service import ChatService
from services.gateway.feedback.recent import RecentFeedback
from services.gateway.feedback.routes import feedback_router
from services.gateway.feedback.service import FeedbackService
from services.gateway.feedback.sink import KafkaFeedbackSink
from services.gateway.feedback.statement import OFFERED_KINDS
from services.gateway.identity import Identifier
from services.gateway.learner import GrpcLearner
from services.gateway.page import page_router, web_files
from services.gateway.releases.board import ReleaseBoard
from services.gateway.releases.routes import releases_router
from services.gateway.releases.tally import ThumbTally
from services.gateway.server import HttpServer
from services.gateway.status import LogConnection, Readiness, health_router
from services.gateway.tokens import FeedbackTokens
from services.shared.bus.interface import Bus, Publisher
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.ids import new_id, utc_now
from services.shared.rpc.channel import open_channel
from services.shared.secrets import KeyUse, load_or_create
from services.shared.settings import Settings
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

RETRY_WINDOW_S = 15.0
"""How long a generator that went away is waited for, while nothing was shown to the client."""
REMEMBERED = 50_000
"""Answers and acknowledgements kept in memory, for repeated requests and for show."""
BODY_BYTES_PER_CHAR = 12
"""JSON may spell a character outside the basic plane in twelve bytes."""
BODY_BYTES_BESIDE = 65_536


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The parts that have a life of their own."""

    admission: Admission
    board: ReleaseBoard
    log: LogConnection
    publisher: Publisher
    public: HttpServer
    control: HttpServer
    channels: tuple[grpc.aio.Channel, ...]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What more than one part needs."""

    settings: Settings
    metrics: Metrics
    generator: GrpcGenerator
    learner: GrpcLearner
    admission: Admission
    tokens: FeedbackTokens
    tally: ThumbTally


def build(settings: Settings, bus: Bus) -> Gateway:
    """Makes all parts. Needs a running event loop. Raises Misconfigured when the keys cannot be read."""
    room = settings.gateway
    metrics = Metrics(room="gateway")
    channels = (open_channel(room.generator_address), open_channel(room.learner_address))
    parts = _Parts(
        settings=settings,
        metrics=metrics,
        generator=GrpcGenerator(channels[0]),
        learner=GrpcLearner(channels[1]),
        admission=Admission(room.max_running, on_change=_gauge(metrics)),
        tokens=_tokens(settings),
        tally=ThumbTally(REMEMBERED),
    )
    publisher = bus.publisher("gateway")
    board = ReleaseBoard(source=parts.learner, generator=parts.generator, tally=parts.tally)
    log = LogConnection(bus, load_topic_pages()[FEEDBACK])
    health = health_router(Readiness(generator=parts.generator, log=log, admission=parts.admission))
    shown = [releases_router(board), health]
    public = public_app(
        routers=[_chat_routes(parts, board), _feedback_routes(parts, publisher), *shown, page_router()],
        routes=[web_files()],
        metrics=metrics,
        monotonic=time.monotonic,
        max_body_bytes=BODY_BYTES_BESIDE + BODY_BYTES_PER_CHAR * room.max_prompt_chars,
        cors_origins=room.cors_origins,
    )
    return Gateway(
        admission=parts.admission,
        board=board,
        log=log,
        publisher=publisher,
        public=HttpServer(public, host=room.host, port=room.port),
        control=HttpServer(control_app(routers=shown, metrics=metrics), host=room.host, port=room.control_port),
        channels=channels,
    )


def _chat_routes(parts: _Parts, board: ReleaseBoard) -> APIRouter:
    settings = parts.settings
    service = ChatService(
        drawer=_drawer(parts.generator),
        identifier=_identifier(settings),
        tokens=parts.tokens,
        admission=parts.admission,
        observer=parts.tally,
        offered_kinds=OFFERED_KINDS,
        tenant=settings.deployment.tenant,
        timeout_s=settings.gateway.request_timeout_s,
        new_id=new_id,
        clock=utc_now,
        monotonic=time.monotonic,
    )
    return chat_router(
        service=service,
        limits=_limits(settings),
        model=_model_card(settings, board),
        monotonic=time.monotonic,
        on_first_text=lambda seconds: parts.metrics.observe("thumbloop_gateway_first_token_seconds", seconds),
    )


def _feedback_routes(parts: _Parts, publisher: Publisher) -> APIRouter:
    service = FeedbackService(
        tokens=parts.tokens,
        sink=KafkaFeedbackSink(publisher),
        lookup=parts.learner,
        recent=RecentFeedback(REMEMBERED),
        on_accepted=parts.tally.feedback_accepted,
        deployment=parts.settings.deployment.name,
        new_id=new_id,
        clock=utc_now,
    )
    return feedback_router(service=service, metrics=parts.metrics, monotonic=time.monotonic)


def _tokens(settings: Settings) -> FeedbackTokens:
    return FeedbackTokens(
        deployment=settings.deployment.name,
        tenant=settings.deployment.tenant,
        keys=load_or_create(settings.secrets_dir, KeyUse.FEEDBACK_TOKEN, utc_now),
        ttl=timedelta(seconds=settings.gateway.feedback_token_ttl_s),
        clock=utc_now,
    )


def _identifier(settings: Settings) -> Identifier:
    folder = settings.secrets_dir
    return Identifier(
        tenant=settings.deployment.tenant,
        prompt_keys=load_or_create(folder, KeyUse.PROMPT, utc_now),
        conversation_keys=load_or_create(folder, KeyUse.CONVERSATION, utc_now),
        rater_keys=load_or_create(folder, KeyUse.RATER, utc_now),
        new_id=new_id,
    )


def _drawer(generator: GrpcGenerator) -> ChoiceDrawer:
    return ChoiceDrawer(
        generator=generator,
        retry_window_s=RETRY_WINDOW_S,
        new_id=new_id,
        monotonic=time.monotonic,
        on_retry=lambda: get_logger().info("generator_retried"),
    )


def _limits(settings: Settings) -> ChatLimits:
    room = settings.gateway
    return ChatLimits(
        model_name=settings.model.name,
        max_messages=room.max_messages,
        max_prompt_chars=room.max_prompt_chars,
        max_tokens_default=room.max_tokens_default,
        max_tokens_limit=room.max_tokens_limit,
        max_choices=room.max_choices,
    )


def _gauge(metrics: Metrics) -> Callable[[int], None]:
    return lambda running: metrics.set("thumbloop_gateway_running_requests", running)


def _model_card(settings: Settings, board: ReleaseBoard) -> Callable[[], dict[str, Any]]:
    """The served model in OpenAI's shape, with the policy version that answers now ("" while none is known)."""
    started = int(utc_now().timestamp())

    def card() -> dict[str, Any]:
        return {
            "id": settings.model.name,
            "object": "model",
            "created": started,
            "owned_by": "thumbloop",
            "thumbloop": {"policy_version": board.picture()["generator"]["live_version"]},
        }

    return card
