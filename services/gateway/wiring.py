"""Makes the gateway's parts and joins them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
from fastapi import APIRouter

from services.gateway.access.control_gate import ControlGate
from services.gateway.access.http_access import HttpAccess
from services.gateway.app import control_app, public_app
from services.gateway.chat.admission import Admission
from services.gateway.chat.choice import ChoiceDrawer
from services.gateway.chat.generation import GrpcGenerator
from services.gateway.chat.request import ChatLimits
from services.gateway.chat.routes import chat_router
from services.gateway.chat.service import ChatService
from services.gateway.feedback.accepting import FeedbackAcceptor
from services.gateway.feedback.counting import FeedbackCounts
from services.gateway.feedback.earlier import EarlierRevisions
from services.gateway.feedback.recent import RecentFeedback
from services.gateway.feedback.routes import feedback_router
from services.gateway.feedback.service import FeedbackService
from services.gateway.feedback.statement import OFFERED_KINDS
from services.gateway.feedback.wiring import Durability, open_durability
from services.gateway.forgetting.learner import GrpcForgetting
from services.gateway.forgetting.memory import GatewayMemory
from services.gateway.forgetting.routes import forgetting_router
from services.gateway.forgetting.service import ForgettingService
from services.gateway.identity import Identifier
from services.gateway.learner import GrpcLearner
from services.gateway.page import page_router, web_files
from services.gateway.releases.board import ReleaseBoard
from services.gateway.releases.routes import releases_router
from services.gateway.releases.tally import ThumbTally
from services.gateway.releases.watchers import Watchers
from services.gateway.server import HttpServer
from services.gateway.status import LogConnection, Readiness, health_router
from services.gateway.tokens import FeedbackTokens
from services.shared.access.room import RoomAccess, follow_access
from services.shared.access.service_credential import service_credential
from services.shared.bus.interface import Bus, Publisher
from services.shared.contracts.feedback import MAX_EDIT_CHARS
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.followed_ring import FollowedRing
from services.shared.ids import new_id, utc_now
from services.shared.limits import TokenBuckets
from services.shared.releases.acknowledger import ControlAcknowledger
from services.shared.releases.control_follower import ControlFollower
from services.shared.releases.forget_orders import ForgottenRaters, forget_only
from services.shared.rpc.channel import open_channel, open_sync_channel
from services.shared.secrets import KeyUse, load_or_create
from services.shared.settings import Settings
from services.shared.settings.model import GatewaySettings
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
    durability: Durability
    access: RoomAccess
    access_channel: grpc.Channel
    orders: ControlFollower
    acknowledger: ControlAcknowledger
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
    access: HttpAccess
    identifier: Identifier
    recent: RecentFeedback
    forgotten: ForgottenRaters


def build(settings: Settings, bus: Bus) -> Gateway:
    """Makes all parts. Needs a running event loop. Raises Misconfigured when the keys cannot be read."""
    room = settings.gateway
    metrics = Metrics(room="gateway")
    service = service_credential(settings)
    channels = (
        open_channel(room.generator_address, credential=service),
        open_channel(room.learner_address, credential=service),
    )
    access_channel = open_sync_channel(room.learner_address, credential=service)
    access = follow_access(settings, replica_id=room.replica_id, learner=access_channel)
    parts = _Parts(
        settings=settings,
        metrics=metrics,
        generator=GrpcGenerator(channels[0]),
        learner=GrpcLearner(channels[1]),
        admission=Admission(room.max_running, on_change=_gauge(metrics)),
        tokens=_tokens(settings),
        tally=ThumbTally(REMEMBERED),
        access=_http_access(settings, access),
        identifier=_identifier(settings),
        recent=RecentFeedback(REMEMBERED),
        forgotten=ForgottenRaters(),
    )
    forgetting = forgetting_router(
        ForgettingService(
            identifier=parts.identifier,
            learner=GrpcForgetting(channels[1]),
            replica_id=room.replica_id,
            tenant=settings.deployment.tenant,
            new_id=new_id,
        )
    )
    acknowledger = ControlAcknowledger(channel=access_channel, replica_id=room.replica_id)
    publisher = bus.publisher("gateway")
    board = ReleaseBoard(source=parts.learner, generator=parts.generator, tally=parts.tally)
    log = LogConnection(bus, load_topic_pages()[FEEDBACK])
    durability = open_durability(
        settings, publisher=publisher, stored=parts.learner, forgotten=parts.forgotten, metrics=metrics
    )
    counts = FeedbackCounts(metrics)
    feedback = _feedback_service(parts, durability)
    orders = _order_follower(parts, durability, feedback, bus, acknowledger)
    readiness = Readiness(
        generator=parts.generator,
        log=log,
        spool=durability.spool,
        orders=orders,
        admission=parts.admission,
        monotonic=time.monotonic,
    )
    health = health_router(readiness)
    acceptor = FeedbackAcceptor(service=feedback, counts=counts, monotonic=time.monotonic)
    public = public_app(
        routers=[
            _chat_routes(parts, board),
            feedback_router(service=feedback, acceptor=acceptor, access=parts.access, counts=counts),
            releases_router(board, _watchers(room), parts.access),
            health,
            page_router(),
        ],
        routes=[web_files()],
        metrics=metrics,
        monotonic=time.monotonic,
        max_body_bytes=BODY_BYTES_BESIDE + BODY_BYTES_PER_CHAR * max(room.max_prompt_chars, MAX_EDIT_CHARS),
        cors_origins=room.cors_origins,
        acceptor=acceptor,
    )
    return Gateway(
        admission=parts.admission,
        board=board,
        log=log,
        publisher=publisher,
        durability=durability,
        access=access,
        access_channel=access_channel,
        orders=orders,
        acknowledger=acknowledger,
        public=HttpServer(public, host=room.host, port=room.port),
        control=HttpServer(
            _control([releases_router(board, _watchers(room)), health, forgetting], metrics, access),
            host=room.host,
            port=room.control_port,
        ),
        channels=channels,
    )


def _order_follower(
    parts: _Parts, durability: Durability, feedback: FeedbackService, bus: Bus, acknowledger: ControlAcknowledger
) -> ControlFollower:
    memory = GatewayMemory(
        asyncio.get_running_loop(),
        forgotten=parts.forgotten,
        drops=[parts.recent.forget, parts.tally.forget],
        in_hand=[feedback.has_in_hand, durability.is_sending],
        spool=durability.spool,
    )
    return ControlFollower(
        deployment=parts.settings.deployment.name,
        open_reader=lambda: bus.log_reader("gateway-orders"),
        carry_out=forget_only(memory.forget),
        acknowledge=acknowledger,
        metrics=parts.metrics,
    )


def _control(routers: Sequence[APIRouter], metrics: Metrics, access: RoomAccess) -> ControlGate:
    app = control_app(routers=routers, metrics=metrics)
    return ControlGate(app, keys=access.keys, service=access.service)


def _watchers(room: GatewaySettings) -> Watchers:
    return Watchers(most=room.max_release_watchers, life_s=room.release_stream_s)


def _http_access(settings: Settings, room: RoomAccess) -> HttpAccess:
    access = settings.access
    return HttpAccess(
        keys=room.keys,
        buckets=TokenBuckets(access.key_requests_per_s, access.key_burst, REMEMBERED, time.monotonic),
        anonymous_tenant=settings.deployment.tenant if access.anonymous_chat else None,
    )


def _chat_routes(parts: _Parts, board: ReleaseBoard) -> APIRouter:
    settings = parts.settings
    service = ChatService(
        drawer=_drawer(parts.generator),
        identifier=parts.identifier,
        tokens=parts.tokens,
        admission=parts.admission,
        observer=parts.tally,
        forgotten=parts.forgotten,
        offered_kinds=OFFERED_KINDS,
        timeout_s=settings.gateway.request_timeout_s,
        new_id=new_id,
        clock=utc_now,
        monotonic=time.monotonic,
    )
    return chat_router(
        service=service,
        access=parts.access,
        limits=_limits(settings),
        model=_model_card(settings, board),
        monotonic=time.monotonic,
        on_first_text=lambda seconds: parts.metrics.observe("thumbloop_gateway_first_token_seconds", seconds),
    )


def _feedback_service(parts: _Parts, durability: Durability) -> FeedbackService:
    return FeedbackService(
        tokens=parts.tokens,
        sink=durability.sink,
        lookup=parts.learner,
        spooled=durability.spooled,
        recent=parts.recent,
        earlier=EarlierRevisions(parts.learner, monotonic=time.monotonic),
        limits=_rater_limits(parts.settings),
        read_limits=_read_limits(parts.settings),
        forgotten=parts.forgotten,
        on_accepted=parts.tally.feedback_accepted,
        deployment=parts.settings.deployment.name,
        new_id=new_id,
        clock=utc_now,
    )


def _rater_limits(settings: Settings) -> TokenBuckets:
    access = settings.access
    return TokenBuckets(access.rater_statements_per_s, access.rater_burst, REMEMBERED, time.monotonic)


def _read_limits(settings: Settings) -> TokenBuckets:
    access = settings.access
    return TokenBuckets(access.rater_reads_per_s, access.rater_read_burst, REMEMBERED, time.monotonic)


def _tokens(settings: Settings) -> FeedbackTokens:
    return FeedbackTokens(
        deployment=settings.deployment.name,
        tenant=settings.deployment.tenant,
        keys=FollowedRing(settings.secrets_dir, KeyUse.FEEDBACK_TOKEN, clock=utc_now),
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
            "thumbloop": {"policy_version": board.live_version},
        }

    return card
