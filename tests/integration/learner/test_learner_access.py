"""The learner's keys and its door, over a real port.

Plan: the room's own server with its own guard on a store; callers without a credential, with keys of all scopes, and
rooms; keys are made, made again, listed, revoked; other rooms follow the snapshot.
Pass: nobody without the service credential or an admin's key gets an answer from any method; making a key is idempotent
by its id, another body under it is a conflict; an admin's key reaches its own tenant alone, says nothing in a replica's
name, and is shown no other's keys or releases; a revoked key is gone from the snapshot at once and refused by the
learner itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.learner.access.key_table import ApiKeyTable
from services.learner.access.methods import METHODS
from services.learner.access.servicer import AccessMethods
from services.shared.access import NewKey, Scope, mint_key
from services.shared.access.follower import fetch_from_learner
from services.shared.access.room import own_access
from services.shared.access.wire import timestamp
from services.shared.domain.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    ThumbloopError,
    Unauthenticated,
)
from services.shared.ids import utc_now
from services.shared.rpc import Credential, RpcServer, error_from_rpc, open_channel, open_sync_channel
from services.shared.settings import Settings
from services.shared.store.database import Database
from tests.support.access import KeyCredential, credential_of
from tests.support.gateway import until

SERVICE = learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]
DEADLINE_S = 10.0


class Keys(AccessMethods, learner_pb2_grpc.LearnerServiceServicer):
    """The methods about keys alone; the others answer UNIMPLEMENTED to whom the door lets in."""


@dataclass
class Door:
    """The learner's port."""

    address: str
    folder: Path
    replicas: list[str]
    """Those that asked for the keys."""

    async def ask(self, method: str, request: Any, credential: Credential | None = None) -> Any:
        """One call as another room, or as `credential`; raises the server's error."""
        async with open_channel(self.address, credential=credential or credential_of(self.folder)) as channel:
            try:
                return await getattr(learner_pb2_grpc.LearnerServiceStub(channel), method)(request, timeout=DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

    async def make(self, *scopes: Scope, tenant: str = "default", minted: NewKey | None = None) -> NewKey:
        minted = minted or mint_key()
        await self.ask("CreateApiKey", order(minted, *scopes, tenant=tenant))
        return minted


def order(minted: NewKey, *scopes: Scope, tenant: str = "default", **extra: Any) -> learner_pb2.CreateApiKeyRequest:
    names = [learner_pb2.Scope.Value(f"SCOPE_{scope.name}") for scope in scopes]
    facts = {"key_id": minted.key_id, "tenant": tenant, "name": "test", "secret_digest": minted.secret_digest}
    return learner_pb2.CreateApiKeyRequest(scopes=names, **{**facts, **extra})


@pytest.fixture
async def door(database: Database, tmp_path: Path) -> AsyncIterator[Door]:
    table = ApiKeyTable(database, clock=utc_now)
    settings = Settings.model_validate({"deployment": {"data_dir": tmp_path}, "access": {"snapshot_interval_s": 3600}})
    access = own_access(settings, table.fetch)
    replicas: list[str] = []
    servicer = Keys(  # type: ignore[abstract]  # see Keys
        keys=table, on_keys_changed=access.follower.look_now, on_replica=replicas.append
    )
    server = RpcServer(
        "127.0.0.1",
        0,
        [lambda one: learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, one)],
        [SERVICE.full_name],
        guard=access.guard(METHODS),
    )
    access.follower.start()
    await server.start()
    yield Door(f"127.0.0.1:{server.port}", tmp_path, replicas)
    await server.stop()
    await asyncio.to_thread(access.follower.stop)


async def lets_in(door: Door, key: NewKey) -> bool:
    try:
        await door.ask("ListApiKeys", learner_pb2.ListApiKeysRequest(tenant="acme"), KeyCredential(key.text))
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
async def test_every_method_is_closed_to_whoever_proves_nothing(door: Door, method: str) -> None:
    request = GetMessageClass(SERVICE.methods_by_name[method].input_type)()
    chat = await door.make(Scope.CHAT, Scope.SCORE, Scope.FEEDBACK)
    await until(lambda: refusal(door, method, request, chat), what="the new key to be known")
    async with open_channel(door.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(learner_pb2_grpc.LearnerServiceStub(channel), method)(request, timeout=DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(Unauthenticated):
        await door.ask(method, request, KeyCredential(mint_key().text))
    with pytest.raises(Unauthenticated, match="not of this deployment"):
        await door.ask(method, request, credential_of(door.folder / "elsewhere"))
    with pytest.raises(PermissionDenied, match=r"needs admin|no API key opens it"):
        await door.ask(method, request, KeyCredential(chat.text))


async def refusal(door: Door, method: str, request: Any, key: NewKey) -> bool:
    """True once the key itself is known: it is refused for its scope alone."""
    try:
        await door.ask(method, request, KeyCredential(key.text))
    except PermissionDenied:
        return True
    except ThumbloopError:
        return False
    return False


async def test_making_a_key_again_is_making_it_once(door: Door) -> None:
    minted = mint_key()
    expires = timestamp(utc_now() + timedelta(days=1))
    request = order(minted, Scope.CHAT, Scope.SCORE, expire_time=expires)
    made = [(await door.ask("CreateApiKey", request)).key for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert made[0].expire_time == expires and made[0].HasField("create_time") and not made[0].HasField("revoke_time")
    for other in (
        order(minted, Scope.CHAT, expire_time=expires),
        order(minted, Scope.CHAT, Scope.SCORE),
        order(minted, Scope.CHAT, Scope.SCORE, expire_time=expires, name="other"),
        order(minted, Scope.CHAT, Scope.SCORE, expire_time=expires, tenant="other"),
        order(minted, Scope.CHAT, Scope.SCORE, expire_time=expires, secret_digest=mint_key().secret_digest),
    ):
        with pytest.raises(Conflict, match="used for another key"):
            await door.ask("CreateApiKey", other)
    assert len((await door.ask("ListApiKeys", learner_pb2.ListApiKeysRequest())).keys) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key_id", ""),
        ("key_id", "ABCDEFGHIJKL"),
        ("secret_digest", ""),
        ("secret_digest", "x" * 64),
        ("tenant", ""),
        ("name", ""),
        ("name", "n" * 101),
        ("name", "a\nb"),
        ("scopes", []),
        ("scopes", [0]),
        ("scopes", [99]),
    ],
)
async def test_a_wrong_order_names_its_field(door: Door, field: str, value: Any) -> None:
    request = order(mint_key(), Scope.CHAT)
    request.ClearField(field)  # type: ignore[arg-type]  # one of the parameters' names
    if isinstance(value, list):
        request.scopes.extend(value)
    else:
        setattr(request, field, value)
    with pytest.raises(InvalidInput) as refused:
        await door.ask("CreateApiKey", request)
    assert refused.value.field == field


async def test_a_revoked_key_is_gone_and_stays_gone(door: Door) -> None:
    admin = await door.make(Scope.ADMIN, tenant="acme")
    await until(lambda: lets_in(door, admin), what="the new key to be known, long before the interval ends")
    revoked = [
        (await door.ask("RevokeApiKey", learner_pb2.RevokeApiKeyRequest(key_id=admin.key_id))).key for _ in range(2)
    ]
    assert revoked[0].HasField("revoke_time") and revoked[0] == revoked[1]

    async def gone() -> bool:
        return not await lets_in(door, admin)

    await until(gone, what="the revoked key to be refused")
    again = (await door.ask("CreateApiKey", order(admin, Scope.ADMIN, tenant="acme"))).key
    assert again == revoked[0], "making it again does not revive it"
    with pytest.raises(NotFound, match="keys list"):
        await door.ask("RevokeApiKey", learner_pb2.RevokeApiKeyRequest(key_id="z" * 12))


async def test_an_admins_key_reaches_its_own_tenant_alone(door: Door) -> None:
    admin, others = await door.make(Scope.ADMIN, tenant="acme"), await door.make(Scope.CHAT, tenant="umbrella")
    await until(lambda: lets_in(door, admin), what="the new key to be known")
    mine = KeyCredential(admin.text)
    listed = await door.ask("ListApiKeys", learner_pb2.ListApiKeysRequest(tenant="acme"), mine)
    assert [key.key_id for key in listed.keys] == [admin.key_id]
    assert await door.ask("ListApiKeys", learner_pb2.ListApiKeysRequest(), mine) == listed
    with pytest.raises(PermissionDenied, match="belongs to tenant 'acme'"):
        await door.ask("ListApiKeys", learner_pb2.ListApiKeysRequest(tenant="umbrella"), mine)
    with pytest.raises(PermissionDenied):
        await door.ask("CreateApiKey", order(mint_key(), Scope.ADMIN, tenant="umbrella"), mine)
    with pytest.raises(NotFound):
        await door.ask("RevokeApiKey", learner_pb2.RevokeApiKeyRequest(key_id=others.key_id), mine)
    every = await door.ask("ListApiKeys", learner_pb2.ListApiKeysRequest())
    assert [key.HasField("revoke_time") for key in every.keys] == [False, False]


async def test_no_admins_key_acts_as_a_room_and_no_tenants_as_the_operator(door: Door) -> None:
    tenants, operators = await door.make(Scope.ADMIN, tenant="acme"), await door.make(Scope.ADMIN)
    await until(lambda: lets_in(door, tenants), what="the new keys to be known")
    rooms: dict[str, Any] = {
        "GetAccessSnapshot": learner_pb2.GetAccessSnapshotRequest(replica_id="generator-0"),
        "AcknowledgeControl": learner_pb2.AcknowledgeControlRequest(replica_id="generator-0", control_id="c-1"),
        "AcknowledgeRelease": learner_pb2.AcknowledgeReleaseRequest(replica_id="generator-0"),
        "FindStoredFeedback": learner_pb2.FindStoredFeedbackRequest(tenant="acme"),
        "FindStoredRollouts": learner_pb2.FindStoredRolloutsRequest(tenant="acme"),
    }
    for method, request in rooms.items():
        for key in (tenants, operators):
            with pytest.raises(PermissionDenied) as refused:
                await door.ask(method, request, KeyCredential(key.text))
            assert refused.value.reason == "ROOMS_ONLY"
    assert door.replicas == []
    operator: dict[str, Any] = {
        "Pause": learner_pb2.PauseRequest(),
        "GetRelease": learner_pb2.GetReleaseRequest(version="p-1"),
    }
    for method, request in operator.items():
        with pytest.raises(PermissionDenied) as refused:
            await door.ask(method, request, KeyCredential(tenants.text))
        assert refused.value.reason == "OPERATOR_ONLY"
        with pytest.raises(ThumbloopError) as let_in:  # see Keys
            await door.ask(method, request, KeyCredential(operators.text))
        assert not isinstance(let_in.value, PermissionDenied)


async def test_rooms_follow_the_snapshot(door: Door) -> None:
    chat, score = await door.make(Scope.CHAT, tenant="acme"), await door.make(Scope.SCORE)
    channel = open_sync_channel(door.address, credential=credential_of(door.folder))
    fetch = fetch_from_learner(channel, replica_id="gateway-7")
    first = await asyncio.to_thread(fetch, "")
    assert first is not None and first.keys.keys() == {chat.key_id, score.key_id}
    key = first.keys[chat.key_id]
    assert (key.principal.tenant, key.principal.scopes) == ("acme", frozenset({Scope.CHAT}))
    assert key.secret_digest == chat.secret_digest
    assert await asyncio.to_thread(fetch, first.digest) is None
    await door.ask("RevokeApiKey", learner_pb2.RevokeApiKeyRequest(key_id=chat.key_id))
    second = await asyncio.to_thread(fetch, first.digest)
    assert second is not None and second.keys.keys() == {score.key_id}
    assert set(door.replicas) == {"gateway-7"}
    channel.close()
