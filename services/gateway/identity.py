"""Who and what a chat request is about: prompt, conversation and rater ids.

All three are keyed hashes, so that an event says nothing of a person or a text to whoever lacks the gateway's keys.
Each use has its own key, and each hash begins with the tenant, so that equal inputs of two tenants share nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.shared.access.scopes import ANONYMOUS
from services.shared.domain.events import NewId
from services.shared.domain.rollout import ChatMessage, Role
from services.shared.secrets import KeyRing

MAX_USER_CHARS = 512
"""Longest name of a person: whoever may chat under it must be able to have it forgotten."""
HASH_CHARS = 32
"""128 bits, in hex: no two ids meet by chance, and an id stays readable in a log."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Ids of one chat request. `rater_id` may rate what is answered."""

    prompt_id: str
    conversation_id: str
    rater_id: str


class Identifier:
    """Gives requests their ids."""

    def __init__(
        self, *, tenant: str, prompt_keys: KeyRing, conversation_keys: KeyRing, rater_keys: KeyRing, new_id: NewId
    ) -> None:
        self._tenant = tenant
        self._prompt_keys = prompt_keys
        self._conversation_keys = conversation_keys
        self._rater_keys = rater_keys
        self._new_id = new_id

    def identify(
        self,
        messages: Sequence[ChatMessage],
        *,
        user: str,
        conversation_id: str,
        tenant: str = "",
        api_key_id: str = ANONYMOUS,
    ) -> Identity:
        """Ids for a request of `user` ("" for none) in a conversation that the client names ("" if it does not).

        `tenant` and `api_key_id` are the caller's; tenant "" is the deployment's. Without a user, nobody can be known
        again: conversation and rater are then random.
        """
        return Identity(
            prompt_id=self.prompt_id(messages, tenant=tenant),
            conversation_id=conversation_id or self._conversation_id(messages, user, tenant, api_key_id),
            rater_id=self.rater_id(user, tenant=tenant) if user else self._new_id(),
        )

    def prompt_id(self, messages: Sequence[ChatMessage], *, tenant: str = "") -> str:
        """Equal for equal messages of one tenant."""
        canonical = json.dumps([[message.role, message.content] for message in messages], separators=(",", ":"))
        return self._hash(self._prompt_keys, canonical, tenant)

    def rater_id(self, user: str, *, tenant: str = "") -> str:
        """Pseudonym of a user."""
        return self._hash(self._rater_keys, user, tenant)

    def rater_ids(self, user: str, *, tenant: str = "") -> tuple[str, ...]:
        """All pseudonyms that a user may have been given: one for each live key, the newest first."""
        return tuple(self._hashed(key.secret, user, tenant) for key in self._rater_keys.keys)

    def _conversation_id(self, messages: Sequence[ChatMessage], user: str, tenant: str, api_key_id: str) -> str:
        if not user:
            return self._new_id()
        first = next((message.content for message in messages if message.role is Role.USER), "")
        return self._hash(self._conversation_keys, json.dumps([api_key_id, user, first]), tenant)

    def _hash(self, ring: KeyRing, text: str, tenant: str) -> str:
        return self._hashed(ring.newest.secret, text, tenant)

    def _hashed(self, secret: bytes, text: str, tenant: str) -> str:
        tenant_key = hmac.digest(secret, (tenant or self._tenant).encode(), hashlib.sha256)
        return hmac.new(tenant_key, text.encode(), hashlib.sha256).hexdigest()[:HASH_CHARS]
