"""Who may call what here. Another room of the deployment may call everything; a key needs the scope named."""

from __future__ import annotations

from thumbloop.generator.v1 import generator_pb2, rollout_pb2

from services.shared.access.method_guard import KeyCaller, MethodScopes, Reserved, methods_of
from services.shared.access.scopes import Scope
from services.shared.domain.errors import PermissionDenied
from services.shared.rpc import current_caller

METHODS: MethodScopes = methods_of(
    generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name,
    {"Generate": Scope.CHAT, "GetStatus": Reserved.OPERATOR},
)
ROOMS_FIELDS = ("rater_id", "canary_id")
"""The gateway gives these: a pseudonym names a person, whose answers others must not be able to make up."""


def check_said_by(request: generator_pb2.GenerateRequest) -> None:
    """What a caller with an API key may not say. Raises PermissionDenied, naming the field."""
    if not isinstance(current_caller.get(), KeyCaller):
        return
    if request.purpose not in (rollout_pb2.PURPOSE_UNSPECIFIED, rollout_pb2.PURPOSE_USER):
        raise _for_rooms("purpose", "PURPOSE_USER")
    for name in ROOMS_FIELDS:
        if getattr(request, name):
            raise _for_rooms(name, "empty")


def _for_rooms(field: str, allowed: str) -> PermissionDenied:
    return PermissionDenied(
        f"With an API key {field} must be {allowed}: the rooms of the deployment alone give it another value.",
        reason="ROOMS_ONLY",
        field=field,
    )
