"""API keys on the public port.

Chat, the models and the releases need a key with scope `chat`, unless the deployment lets everyone chat; a key that is
presented all the same is checked, and its tenant and limits hold. Feedback needs no key, but the answer's token.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.bearer import presented
from services.shared.access.keys import PREFIX
from services.shared.access.scopes import Principal, Scope, anonymous
from services.shared.domain.errors import Unauthenticated
from services.shared.limits import TokenBuckets

_SCHEME = HTTPBearer(
    scheme_name="ApiKey",
    bearerFormat="tl_<key id>_<secret>",
    description="An API key with scope chat, made by `thumbloop keys create`.",
    auto_error=False,
)


class HttpAccess:
    """Dependencies of routes. Each leaves the caller in the request's state, for `caller_of`."""

    def __init__(self, *, keys: KeyAuthenticator, buckets: TokenBuckets, anonymous_tenant: str | None) -> None:
        """`anonymous_tenant`: tenant of those who chat without a key; None: nobody may."""
        self._keys = keys
        self._buckets = buckets
        self._anonymous = None if anonymous_tenant is None else anonymous(anonymous_tenant)

    @property
    def documented(self) -> list[Any]:
        """What makes the OpenAPI description say that a key is needed, where it is."""
        return [Security(_SCHEME)] if self._anonymous is None else []

    async def chat(self, request: Request) -> None:
        """For chat, and for what chat clients may see; each request counts against the key's limit. Who chats without
        a key has none of its own. Raises Unauthenticated, PermissionDenied, Unavailable, Busy.
        """
        caller = self._chatting(request.headers.get("authorization", ""))
        if caller is not self._anonymous:
            self._buckets.take(caller.key_id)
        request.state.caller = caller

    def feedback_reader(self, authorization: str) -> Principal:
        """Whoever may see where any feedback of a tenant is; counts against the key's limit. Raises as `chat`."""
        principal = self._keys.authenticate(presented(authorization))
        principal.require(Scope.FEEDBACK)
        self._buckets.take(principal.key_id)
        return principal

    def _chatting(self, authorization: str) -> Principal:
        try:
            secret = presented(authorization)
        except Unauthenticated:
            if self._anonymous is not None:
                return self._anonymous
            raise
        if self._anonymous is not None and not secret.startswith(PREFIX):
            return self._anonymous  # clients send something ("none") where nothing is needed
        principal = self._keys.authenticate(secret)
        principal.require(Scope.CHAT)
        return principal


def caller_of(request: Request) -> Principal:
    """Whom the route's dependency let in."""
    caller: Principal = request.state.caller
    return caller
