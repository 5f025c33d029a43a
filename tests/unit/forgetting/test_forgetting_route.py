"""`DELETE /v1/users/NAME` on the control port, in process: whom a request means, and of which tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import ValidationError

from services.gateway.access.control_gate import ControlGate
from services.gateway.app import control_app
from services.gateway.chat.body import ChatBody
from services.gateway.forgetting.routes import forgetting_router
from services.gateway.forgetting.service import ForgettingService, Forgotten, Progress
from services.gateway.identity import MAX_USER_CHARS, Identifier
from services.shared.access import AccessSnapshot, Scope
from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.bearer import bearer
from services.shared.ids import new_id, utc_now
from services.shared.secrets import KeyUse, load_or_create
from services.shared.telemetry.metrics import Metrics
from tests.support.access import credential_of, live_key
from tests.support.forgetting_world import ORDER

OWN = "default"


class Learner:
    """Forgets whom it is told to."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[str, tuple[str, ...]]] = []

    async def forget(self, *, tenant: str, rater_ids: tuple[str, ...], control_id: str, timeout_s: float) -> Forgotten:
        self.forgotten.append((tenant, rater_ids))
        return Forgotten(control_id=control_id, rollouts=0, feedback=0, versions=())

    async def control(self, control_id: str, *, timeout_s: float) -> Progress:
        raise NotImplementedError


class ControlPort:
    """A deployment's, with an administrator of tenant acme, one of the deployment's own, and the rooms' credential."""

    def __init__(self, folder: Path) -> None:
        acme, acme_key = live_key(Scope.ADMIN, tenant="acme")
        own, own_key = live_key(Scope.ADMIN, tenant=OWN)
        service = credential_of(folder)
        snapshot = AccessSnapshot.of([acme_key, own_key])
        self.callers = {"acme": bearer(acme.text), "own": bearer(own.text), "room": service.authorization()}
        self.learner = Learner()
        self.identifier = Identifier(
            tenant=OWN,
            prompt_keys=load_or_create(folder, KeyUse.PROMPT, utc_now),
            conversation_keys=load_or_create(folder, KeyUse.CONVERSATION, utc_now),
            rater_keys=load_or_create(folder, KeyUse.RATER, utc_now),
            new_id=new_id,
        )
        forgetting = ForgettingService(
            identifier=self.identifier, learner=self.learner, replica_id="gateway-0", tenant=OWN, new_id=new_id
        )
        app = control_app(routers=[forgetting_router(forgetting)], metrics=Metrics(room="gateway"))
        keys = KeyAuthenticator(snapshot=lambda: snapshot, clock=utc_now)
        self._app = ControlGate(app, keys=keys, service=service)

    async def forget(self, user: str, *, caller: str = "room", **query: str) -> httpx.Response:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.delete(
                f"/v1/users/{quote(user, safe='')}",
                params={"control_id": ORDER, **query},
                headers={"Authorization": self.callers[caller]},
            )


@pytest.fixture
def port(tmp_path: Path) -> ControlPort:
    return ControlPort(tmp_path)


@pytest.mark.parametrize(
    ("caller", "named", "meant"),
    [
        ("acme", "", "acme"),
        ("acme", "acme", "acme"),
        ("own", "", OWN),
        ("room", "", OWN),
        ("room", "acme", "acme"),
    ],
)
async def test_whose_person_is_meant(port: ControlPort, caller: str, named: str, meant: str) -> None:
    answer = await port.forget("alice", caller=caller, tenant=named)
    assert answer.status_code == 202, answer.text
    assert port.learner.forgotten == [(meant, port.identifier.rater_ids("alice", tenant=meant))]


@pytest.mark.parametrize(("caller", "named"), [("acme", OWN), ("own", "acme")])
async def test_a_key_reaches_nobody_of_another_tenant(port: ControlPort, caller: str, named: str) -> None:
    answer = await port.forget("alice", caller=caller, tenant=named)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_tenant")
    assert port.learner.forgotten == []


def chat_with(**extra: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **extra})


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
@pytest.mark.parametrize("character", ["a", "/", "\N{SEEDLING}"])
async def test_whoever_may_chat_can_be_forgotten(port: ControlPort, field: str, character: str) -> None:
    longest = character * MAX_USER_CHARS
    assert getattr(chat_with(**{field: longest}), field) == longest
    answer = await port.forget(longest)
    assert answer.status_code == 202, answer.text
    assert port.learner.forgotten == [(OWN, port.identifier.rater_ids(longest))]


async def test_a_longer_name_is_nobodys(port: ControlPort) -> None:
    too_long = "a" * (MAX_USER_CHARS + 1)
    with pytest.raises(ValidationError):
        chat_with(user=too_long)
    answer = await port.forget(too_long)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_user")
    assert str(MAX_USER_CHARS) in answer.json()["error"]["message"]
