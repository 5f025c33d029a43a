"""What callers may do, and who they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from services.shared.domain.errors import PermissionDenied

ANONYMOUS = "anonymous"
"""Key id of callers without a key, where a deployment lets them chat. No key has it: ids have twelve characters."""


class Scope(StrEnum):
    """What a key allows; the proto `thumbloop.learner.v1.Scope` says what each covers."""

    CHAT = "chat"
    SCORE = "score"
    FEEDBACK = "feedback"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whom a key speaks for."""

    key_id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]

    def may(self, *scopes: Scope) -> bool:
        """True if the key has one of the scopes. An admin may do everything."""
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(scopes)

    def require(self, *scopes: Scope) -> None:
        """Raises PermissionDenied if the key has none of the scopes."""
        if not self.may(*scopes):
            raise PermissionDenied(
                f"API key {self.key_id} has the scope {_words(self.scopes)}, and this needs {_words(scopes)}. "
                "Use a key that has it; `thumbloop keys create` makes one.",
                reason="WRONG_SCOPE",
                field="Authorization",
            )

    def require_tenant(self, tenant: str) -> None:
        """Raises PermissionDenied if the key is another tenant's."""
        if tenant != self.tenant:
            raise PermissionDenied(
                f"API key {self.key_id} belongs to tenant {self.tenant!r} and reaches nothing of tenant {tenant!r}. "
                "Use a key of that tenant.",
                reason="WRONG_TENANT",
                field="tenant",
            )


def anonymous(tenant: str) -> Principal:
    """Whoever chats without a key, where that is allowed."""
    return Principal(key_id=ANONYMOUS, tenant=tenant, name=ANONYMOUS, scopes=frozenset({Scope.CHAT}))


def _words(scopes: Iterable[Scope]) -> str:
    return " or ".join(sorted(scopes)) or "nothing"
