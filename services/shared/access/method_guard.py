"""Who may call which gRPC method: the table of a room, held against what callers present."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.bearer import presented
from services.shared.access.scopes import Principal, Scope
from services.shared.access.service_credential import ServiceCredential, claims_service
from services.shared.domain.errors import PermissionDenied, Unauthenticated
from services.shared.limits import TokenBuckets


class Reserved(Enum):
    """Methods that concern more than one tenant, so that a scope alone does not open them."""

    OPERATOR = "the operator"
    """A key needs scope admin and the deployment's own tenant."""
    ROOMS = "the rooms"
    """No key opens it: who calls speaks for a replica, or is shown what proves all keys."""


MethodScopes = Mapping[str, Scope | Reserved]
"""Full method name, `/package.Service/Method`, to the scope that a key needs for it, or for whom it is reserved."""


@dataclass(frozen=True, kw_only=True)
class KeyCaller:
    """A caller with an API key."""

    principal: Principal

    def check_request(self, request: Any) -> None:
        """A key reaches its own tenant: where a request can name one, it must be that; left empty, it becomes that.

        Raises PermissionDenied.
        """
        tenant = getattr(request, "tenant", None)
        if tenant == "":
            request.tenant = self.principal.tenant
        elif isinstance(tenant, str):
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
    """A `CallGuard` for one room. A method that is not in the table is closed to everyone. Belongs to one thread."""

    def __init__(
        self,
        *,
        methods: MethodScopes,
        service: ServiceCredential,
        keys: KeyAuthenticator,
        tenant: str,
        buckets: TokenBuckets,
    ) -> None:
        """`tenant` is the deployment's own, whose administrators operate it; each key has a bucket."""
        self._methods = methods
        self._service = service
        self._keys = keys
        self._tenant = tenant
        self._buckets = buckets

    def admit(self, method: str, authorization: str) -> KeyCaller | None:
        """See `CallGuard`. None: another room of this deployment, which may do everything in the table."""
        secret = presented(authorization)
        needed = self._methods.get(method)
        principal = who(secret, service=self._service, keys=self._keys)
        if needed is None:
            raise PermissionDenied(f"The method {method} is open to nobody.", reason="METHOD_CLOSED")
        if principal is None:
            return None
        self._require(principal, method, needed)
        self._buckets.take(principal.key_id)
        return KeyCaller(principal=principal)

    def _require(self, principal: Principal, method: str, needed: Scope | Reserved) -> None:
        if needed is Reserved.ROOMS:
            raise PermissionDenied(
                f"The method {method} is for the rooms of this deployment alone; no API key opens it.",
                reason="ROOMS_ONLY",
                field="Authorization",
            )
        if needed is not Reserved.OPERATOR:
            principal.require(needed)
            return
        principal.require(Scope.ADMIN)
        if principal.tenant != self._tenant:
            raise PermissionDenied(
                f"The method {method} concerns the whole deployment, and API key {principal.key_id} belongs to tenant "
                f"{principal.tenant!r}. Use an admin's key of tenant {self._tenant!r}, or the deployment's secrets "
                "folder.",
                reason="OPERATOR_ONLY",
                field="Authorization",
            )


def methods_of(service_name: str, scopes: Mapping[str, Scope | Reserved]) -> MethodScopes:
    """The table of one service, from plain method names."""
    return {f"/{service_name}/{name}": scope for name, scope in scopes.items()}
