"""Feedback tokens: who may say what of which answer, checked without a look-up.

A token is a JSON Web Token (RFC 7519) signed with HS256 by a key of the gateway's ring. It goes out with every answer,
may be held by a browser, and allows one thing: feedback of the named kinds on one rollout, in the name of one rater.
Claims have short names, since a token travels with every answer:

    dep  deployment         ten  tenant         rtr  rater pseudonym
    rol  rollout id         prm  prompt id      knd  kinds              exp  expiry
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

from joserfc import jws
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import GuestProtocol, OctKey

from services.shared.domain.errors import PermissionDenied, Unauthenticated
from services.shared.domain.events import Clock
from services.shared.domain.feedback import FeedbackKind
from services.shared.secrets import Key

ALGORITHM = "HS256"
TOKEN_TYPE = "feedback+jwt"  # explicit typing, RFC 8725 section 3.11
MAX_TOKEN_CHARS = 2048
_CLAIMS = ("dep", "ten", "rtr", "rol", "prm", "knd", "exp")
_KINDS = {str(kind): kind for kind in FeedbackKind}
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
"""The one right spelling in base64url of the 32 bytes that HS256 gives.

Base64 leaves two bits of the last character unused and lenient decoders skip foreign characters: without this check, an
altered signature could still verify. (Head and payload are signed as they are spelt.)
"""
_REGISTRY = jws.JWSRegistry(algorithms=[ALGORITHM])
_GET_ANOTHER = "Use the feedback_token of the answer's `thumbloop` object, unchanged."


@dataclass(frozen=True, kw_only=True)
class FeedbackClaims:
    """What a token allows."""

    tenant: str
    rater_id: str
    rollout_id: str
    prompt_id: str
    kinds: tuple[FeedbackKind, ...]
    expiry: datetime
    key_id: str


class TokenKeys(Protocol):
    """The live keys. They may change at any time."""

    @property
    def signing(self) -> Key:
        """The key that signs."""

    def by_id(self, key_id: str) -> Key | None:
        """The live key of that name."""


class FeedbackTokens:
    """Signs and checks tokens of one deployment."""

    def __init__(self, *, deployment: str, tenant: str, keys: TokenKeys, ttl: timedelta, clock: Clock) -> None:
        self._deployment = deployment
        self._tenant = tenant
        self._keys = keys
        self._ttl = ttl
        self._clock = clock

    def issue(
        self, *, rater_id: str, rollout_id: str, prompt_id: str, kinds: Iterable[FeedbackKind], tenant: str = ""
    ) -> str:
        """A token for one rollout, signed by the key that signs now. `tenant` "": the deployment's."""
        key = self._keys.signing
        claims = {
            "dep": self._deployment,
            "ten": tenant or self._tenant,
            "rtr": rater_id,
            "rol": rollout_id,
            "prm": prompt_id,
            "knd": [str(kind) for kind in kinds],
            "exp": int((self._clock() + self._ttl).timestamp()),
        }
        head = {"alg": ALGORITHM, "kid": key.id, "typ": TOKEN_TYPE}
        payload = json.dumps(claims, separators=(",", ":"))
        return jws.serialize_compact(head, payload, _oct_key(key.secret), registry=_REGISTRY)

    def check(self, token: str, *, field: str = "token") -> FeedbackClaims:
        """What a token allows; `field` names where it was sent, for the error.

        Raises Unauthenticated if it is altered, truncated, signed by an unknown key or expired, PermissionDenied if it
        was signed for another deployment. Its tenant is the one whose API key asked for the answer.
        """
        if len(token) > MAX_TOKEN_CHARS or not _SIGNATURE.fullmatch(token.rpartition(".")[2]):
            raise _invalid(field)
        key_id, claims = self._verify(token, field)
        if claims["dep"] != self._deployment:
            raise PermissionDenied(
                "This feedback token belongs to another deployment. Send it to the gateway that answered.",
                reason="FEEDBACK_TOKEN_FOREIGN",
                field=field,
            )
        expiry = datetime.fromtimestamp(claims["exp"], tz=UTC)
        if expiry <= self._clock():
            raise Unauthenticated(
                f"This feedback token expired at {expiry.isoformat()}; the answer can no longer be rated.",
                reason="FEEDBACK_TOKEN_EXPIRED",
                field=field,
            )
        return _claims(claims, expiry=expiry, key_id=key_id)

    def _verify(self, token: str, field: str) -> tuple[str, dict[str, Any]]:
        """Key id and payload of a token whose signature, type and claim names are right."""
        try:
            signed = jws.deserialize_compact(token, self._key_of, registry=_REGISTRY)
            claims = json.loads(signed.payload)
        except (JoseError, ValueError, TypeError) as error:  # a header of other JSON types is a TypeError of joserfc's
            raise _invalid(field) from error
        # Expiry is checked by our own clock, and no registered claim but `exp` is ours: the signature is enough.
        if not isinstance(claims, dict) or any(name not in claims for name in _CLAIMS):
            raise _invalid(field)
        return str(signed.headers()["kid"]), claims

    def _key_of(self, signed: GuestProtocol) -> OctKey:
        """The key that a token's head names; the signature is not checked yet."""
        head = signed.headers()
        key = self._keys.by_id(str(head.get("kid", "")))
        if key is None or head.get("typ") != TOKEN_TYPE:
            raise InvalidKeyIdError("no live key of this gateway")
        return _oct_key(key.secret)


def _claims(claims: dict[str, Any], *, expiry: datetime, key_id: str) -> FeedbackClaims:
    return FeedbackClaims(
        tenant=claims["ten"],
        rater_id=claims["rtr"],
        rollout_id=claims["rol"],
        prompt_id=claims["prm"],
        kinds=tuple(_KINDS[kind] for kind in claims["knd"] if kind in _KINDS),
        expiry=expiry,
        key_id=key_id,
    )


@lru_cache(maxsize=64)
def _oct_key(secret: bytes) -> OctKey:
    """Making one takes longer than checking a signature with it."""
    return OctKey.import_key(secret)


def _invalid(field: str) -> Unauthenticated:
    return Unauthenticated(
        f"This feedback token is not one of this gateway, or it was altered. {_GET_ANOTHER}",
        reason="FEEDBACK_TOKEN_INVALID",
        field=field,
    )
