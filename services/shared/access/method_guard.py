"""Who may call which gRPC method: the table of a room, held against what callers present."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.bearer import presented
from services.shared.access.scopes import Principal, Scope
from services.shared.access.service_credential import ServiceCredential, claims_service
from services.shared.domain.errors import PermissionDenied, Unauthenticated

MethodScopes = Mapping[str, Scope]
"""Full method name, `/package.Service/Method`, to the scope that a key needs for it."""


@dataclass(frozen=True, kw_only=True)
class KeyCaller:
    """A caller with an API key."""

    principal: Principal

    def check_request(self, request: Any) -> None:
        """A key reaches its own tenant: where a request names one, it must be that. Raises PermissionDenied."""
        tenant = getattr(request, "tenant", None)
        if isinstance(tenant, str):
            self.principal.require_tenant(tenant)


def who(presented: str, *, service: ServiceCredential, keys: KeyAuthenticator) -> Principal | None:
    """Whom a key speaks for; None: another room of this deployment. Raises Unauthenticated, Unavailable."""
    if service.accepts(presented):
        return None
    if claims_service(presented):
        raise Unauthenticated(
            "This service credential is not of this deployment. Every room needs the same key ring `service` in its "
            "secrets folder (THUMBLOOP_DEPLOYMENT__SECRETS_DIR).",
            reason="SERVICE_KEY_UNKNOWN",
            field="Authorization",
        )
    return keys.authenticate(presented)


class MethodGuard:
    """A `CallGuard` for one room. A method that is not in the table is closed to everyone."""

    def __init__(self, *, methods: MethodScopes, service: ServiceCredential, keys: KeyAuthenticator) -> None:
        self._methods = methods
        self._service = service
        self._keys = keys

    def admit(self, method: str, authorization: str) -> KeyCaller | None:
        """See `CallGuard`. None: another room of this deployment, which may do everything in the table."""
        secret = presented(authorization)
        scope = self._methods.get(method)
        principal = who(secret, service=self._service, keys=self._keys)
        if scope is None:
            raise PermissionDenied(f"The method {method} is open to nobody.", reason="METHOD_CLOSED")
        if principal is None:
            return None
        principal.require(scope)
        return KeyCaller(principal=principal)


def methods_of(service_name: str, scopes: Mapping[str, Scope]) -> MethodScopes:
    """The table of one service, from plain method names."""
    return {f"/{service_name}/{name}": scope for name, scope in scopes.items()}
