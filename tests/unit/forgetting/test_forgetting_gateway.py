"""Whom the gateway says an order waits for: whom the learner names, and itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.forgetting.service import ForgettingService, Forgotten, Progress
from services.gateway.identity import Identifier
from services.shared.ids import new_id, utc_now
from services.shared.secrets import KeyUse, load_or_create
from tests.support.facts import START, TENANT
from tests.support.forgetting_world import ORDER


class Learner:
    """Knows one order."""

    def __init__(self, *, acknowledged_by: tuple[str, ...], waiting_for: tuple[str, ...]) -> None:
        self._acknowledged_by = acknowledged_by
        self._waiting_for = waiting_for

    async def forget(self, *, tenant: str, rater_ids: tuple[str, ...], control_id: str, timeout_s: float) -> Forgotten:
        return Forgotten(control_id=control_id, rollouts=0, feedback=0, versions=())

    async def control(self, control_id: str, *, timeout_s: float) -> Progress:
        return Progress(
            control_id=control_id,
            publish_time=START,
            acknowledged_by=self._acknowledged_by,
            waiting_for=self._waiting_for,
        )


@pytest.mark.parametrize(
    ("acknowledged_by", "named", "waiting_for"),
    [
        ((), ("learner",), ("gateway-0", "learner")),
        (("gateway-0",), ("learner",), ("learner",)),
        (("learner",), ("gateway-0", "gateway-1"), ("gateway-0", "gateway-1")),
        (("gateway-0", "gateway-1", "learner"), (), ()),
    ],
)
async def test_the_gateway_that_is_asked_is_waited_for(
    tmp_path: Path, acknowledged_by: tuple[str, ...], named: tuple[str, ...], waiting_for: tuple[str, ...]
) -> None:
    identifier = Identifier(
        tenant=TENANT,
        prompt_keys=load_or_create(tmp_path, KeyUse.PROMPT, utc_now),
        conversation_keys=load_or_create(tmp_path, KeyUse.CONVERSATION, utc_now),
        rater_keys=load_or_create(tmp_path, KeyUse.RATER, utc_now),
        new_id=new_id,
    )
    learner = Learner(acknowledged_by=acknowledged_by, waiting_for=named)
    service = ForgettingService(
        identifier=identifier, learner=learner, replica_id="gateway-0", tenant=TENANT, new_id=new_id
    )
    progress = await service.progress(ORDER)
    assert (progress.acknowledged_by, progress.waiting_for) == (acknowledged_by, waiting_for)
