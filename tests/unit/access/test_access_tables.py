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
from services.shared.access.method_guard import KeyCaller, MethodGuard, MethodScopes, Reserved
from services.shared.domain.errors import Busy, PermissionDenied, Unauthenticated
from services.shared.ids import utc_now
from services.shared.limits import TokenBuckets
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
    assert set(LEARNER.values()) == {Scope.ADMIN, Reserved.OPERATOR, Reserved.ROOMS}


def test_a_tenants_administrator_reaches_what_names_the_tenant_alone() -> None:
    """Every method that a key of any tenant may call says whose data it is about, or which one thing."""
    one_thing = {"RevokeApiKey": "key_id", "GetControl": "control_id"}
    methods = learner_pb2.DESCRIPTOR.services_by_name["LearnerService"].methods_by_name
    open_to_tenants = [path.rpartition("/")[2] for path, needed in LEARNER.items() if needed is Scope.ADMIN]
    for name in open_to_tenants:
        assert one_thing.get(name, "tenant") in methods[name].input_type.fields_by_name


def guard(
    folder: Path, table: MethodScopes, *keys: LiveKey, burst: int = 1000
) -> tuple[MethodGuard, ServiceCredential]:
    service = credential_of(folder)
    snapshot = AccessSnapshot.of(keys)
    authenticator = KeyAuthenticator(snapshot=lambda: snapshot, clock=utc_now)
    buckets = TokenBuckets(1.0, burst, 100, lambda: 0.0)
    gate = MethodGuard(methods=table, service=service, keys=authenticator, tenant="default", buckets=buckets)
    return gate, service


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
            if wanted is Reserved.ROOMS:
                with pytest.raises(PermissionDenied, match="no API key opens it"):
                    gate.admit(method, bearer(minted.text))
            elif scope in (wanted, Scope.ADMIN):
                assert gate.admit(method, bearer(minted.text)) == KeyCaller(principal=key.principal)
            else:
                with pytest.raises(PermissionDenied, match="needs"):
                    gate.admit(method, bearer(minted.text))


@pytest.mark.parametrize(("service", "table"), ROOMS, ids=lambda one: getattr(one, "name", ""))
def test_what_concerns_the_whole_deployment_needs_a_key_of_its_own_tenant(
    service: ServiceDescriptor, table: MethodScopes, tmp_path: Path
) -> None:
    foreign, key = live_key(Scope.ADMIN, tenant="acme")
    gate, _ = guard(tmp_path, table, key)
    refused = set()
    for method in table:
        try:
            assert gate.admit(method, bearer(foreign.text)) == KeyCaller(principal=key.principal)
        except PermissionDenied as error:
            assert error.reason in ("OPERATOR_ONLY", "ROOMS_ONLY")
            refused.add(method)
    assert refused == {method for method, needed in table.items() if isinstance(needed, Reserved)}


def test_a_key_has_a_limit_and_a_room_has_none(tmp_path: Path) -> None:
    (minted, key), (other, other_key) = live_key(Scope.CHAT), live_key(Scope.CHAT)
    gate, rooms = guard(tmp_path, GENERATOR, key, other_key, burst=3)
    generate = next(method for method in GENERATOR if method.endswith("/Generate"))
    for _ in range(3):
        gate.admit(generate, bearer(minted.text))
    with pytest.raises(Busy) as refused:
        gate.admit(generate, bearer(minted.text))
    assert refused.value.retry_after == pytest.approx(1.0)
    gate.admit(generate, bearer(other.text))
    for _ in range(10):
        assert gate.admit(generate, rooms.authorization()) is None


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
    with pytest.raises(PermissionDenied, match="belongs to tenant 'acme'"):
        caller.check_request(learner_pb2.GetFeedbackRequest(tenant="other", feedback_id="f"))
    unsaid = learner_pb2.GetFeedbackRequest(feedback_id="f")
    caller.check_request(unsaid)
    assert unsaid.tenant == "acme"
