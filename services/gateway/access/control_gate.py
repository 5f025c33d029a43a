"""The control port's gate: probes and scrapers pass, everything else is denied before it is routed.

Plain ASGI, outside the application, so that a route that somebody adds is closed until a caller proves to be an
administrator (an API key with scope `admin`) or another room of the deployment.
"""

from __future__ import annotations

from fastapi import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from services.gateway.errors import error_response
from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.bearer import presented
from services.shared.access.method_guard import who
from services.shared.access.scopes import Principal, Scope
from services.shared.access.service_credential import ServiceCredential
from services.shared.domain.errors import ThumbloopError

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class ControlGate:
    """Wraps the control application."""

    def __init__(self, app: ASGIApp, *, keys: KeyAuthenticator, service: ServiceCredential) -> None:
        self._app = app
        self._keys = keys
        self._service = service

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answers 401 or 403 by itself; passes on who may."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                caller = self._admit(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))
                scope.setdefault("state", {})["caller"] = caller
            except ThumbloopError as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, authorization: str) -> Principal | None:
        principal = who(presented(authorization), service=self._service, keys=self._keys)
        if principal is not None:
            principal.require(Scope.ADMIN)
        return principal


def tenant_meant(request: Request, named: str, *, own: str) -> str:
    """For routes of the control port that reach one tenant's data: whose a request means that names `named`.

    "" is the tenant of the caller's key, or `own`, the deployment's, where another room calls. Raises PermissionDenied
    if the key is another tenant's than the one that is named; rooms of the deployment reach all.
    """
    caller: Principal | None = request.state.caller
    if caller is None:
        return named or own
    if named:
        caller.require_tenant(named)
    return caller.tenant
