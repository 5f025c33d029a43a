"""Every method of every room stands in its table: one that is added and forgotten fails here, and is closed to all."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from thumbloop.generator.v1 import generator_pb2
from thumbloop.learner.v1 import learner_pb2
from thumbloop.reward.v1 import reward_pb2

from services.generator.access import METHODS as GENERATOR
from services.learner.access.methods import METHODS as LEARNER
from services.reward.access import METHODS as REWARD
from services.shared.access import AccessSnapshot, LiveKey, Scope, ServiceCredential
from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.bearer import bearer
from services.shared.access.method_guard import KeyCaller, MethodGuard, MethodScopes
from services.shared.domain.errors import PermissionDenied, Unauthenticated
from services.shared.ids import utc_now
from tests.support.access import credential_of, live_key

ROOMS: list[tuple[ServiceDescriptor, MethodScopes]] = [
    (generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"], GENERATOR),
    (reward_pb2.DESCRIPTOR.services_by_name["RewardService"], REWARD),
    (learner_pb2.DESCRIPTOR.services_by_name["LearnerService"], LEARNER),
]


@pytest.mark.parametrize(("service", "table"), ROOMS, ids=lambda one: getattr(one, "name", ""))
def test_a_table_names_exactly_the_methods_of_its_service(service: ServiceDescriptor, table: MethodScopes) -> None:
    assert set(table) == {f"/{service.full_name}/{method.name}" for method in service.methods}


def test_no_room_serves_what_no_table_names() -> None:
    """All services of all protos: a new one is a new table."""
    files = [generator_pb2.DESCRIPTOR, reward_pb2.DESCRIPTOR, learner_pb2.DESCRIPTOR]
    protos = Path(__file__).parents[3] / "protos" / "thumbloop"
    written = sum(text.count("\nservice ") for text in (path.read_text() for path in protos.rglob("*.proto")))
    assert written == sum(len(file.services_by_name) for file in files) == len(ROOMS)


def test_the_control_plane_is_for_administrators_alone() -> None:
    assert set(LEARNER.values()) == {Scope.ADMIN}


def guard(folder: Path, table: MethodScopes, *keys: LiveKey) -> tuple[MethodGuard, ServiceCredential]:
    service = credential_of(folder)
    snapshot = AccessSnapshot.of(keys)
    authenticator = KeyAuthenticator(snapshot=lambda: snapshot, clock=utc_now)
    return MethodGuard(methods=table, service=service, keys=authenticator), service


@pytest.mark.parametrize(("service", "table"), ROOMS, ids=lambda one: getattr(one, "name", ""))
def test_each_method_is_open_to_rooms_and_to_its_scope_alone(
    service: ServiceDescriptor, table: MethodScopes, tmp_path: Path
) -> None:
    made = {scope: live_key(scope) for scope in Scope}
    gate, rooms = guard(tmp_path, table, *(key for _, key in made.values()))
    for method, wanted in table.items():
        assert gate.admit(method, rooms.authorization()) is None
        for nobody in ("", "Bearer none", "Basic YTpi", bearer("ts_k1_" + "0" * 64)):
            with pytest.raises(Unauthenticated):
                gate.admit(method, nobody)
        for scope, (minted, key) in made.items():
            if scope in (wanted, Scope.ADMIN):
                assert gate.admit(method, bearer(minted.text)) == KeyCaller(principal=key.principal)
            else:
                with pytest.raises(PermissionDenied, match="needs"):
                    gate.admit(method, bearer(minted.text))


def test_a_forgotten_method_is_closed_to_everyone(tmp_path: Path) -> None:
    minted, key = live_key(Scope.ADMIN)
    gate, rooms = guard(tmp_path, LEARNER, key)
    for authorization in (rooms.authorization(), bearer(minted.text)):
        with pytest.raises(PermissionDenied, match="open to nobody"):
            gate.admit("/thumbloop.learner.v1.LearnerService/Forgotten", authorization)


def test_another_deployments_room_hears_what_is_wrong(tmp_path: Path) -> None:
    gate, _ = guard(tmp_path / "one", LEARNER)
    with pytest.raises(Unauthenticated, match="THUMBLOOP_DEPLOYMENT__SECRETS_DIR"):
        gate.admit(next(iter(LEARNER)), credential_of(tmp_path / "other").authorization())


def test_a_key_reaches_its_own_tenant() -> None:
    _, key = live_key(Scope.ADMIN, tenant="acme")
    caller = KeyCaller(principal=key.principal)
    caller.check_request(learner_pb2.GetFeedbackRequest(tenant="acme", feedback_id="f"))
    caller.check_request(learner_pb2.GetStatusRequest())
    for tenant in ("other", ""):
        with pytest.raises(PermissionDenied, match="belongs to tenant 'acme'"):
            caller.check_request(learner_pb2.GetFeedbackRequest(tenant=tenant, feedback_id="f"))
