"""Ids of prompts, conversations and raters: stable where they must be, apart where they must be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

from services.gateway.identity import Identifier
from services.shared.domain.rollout import ChatMessage, Role
from services.shared.secrets import Key, KeyRing, KeyUse


def ring(use: KeyUse, seed: bytes = b"s") -> KeyRing:
    secret = (seed + use.encode()).ljust(32, b".")
    return KeyRing(use=use, keys=(Key(id="k", secret=secret, created_time=datetime(2026, 1, 1, tzinfo=UTC)),))


def identifier(tenant: str = "t", seed: bytes = b"s") -> Identifier:
    numbers = count()
    return Identifier(
        tenant=tenant,
        prompt_keys=ring(KeyUse.PROMPT, seed),
        conversation_keys=ring(KeyUse.CONVERSATION, seed),
        rater_keys=ring(KeyUse.RATER, seed),
        new_id=lambda: f"random-{next(numbers)}",
    )


def chat(*texts: str) -> list[ChatMessage]:
    roles = [Role.USER, Role.ASSISTANT]
    return [ChatMessage(role=roles[index % 2], content=text) for index, text in enumerate(texts)]


def test_equal_prompts_share_an_id_within_a_tenant_alone() -> None:
    assert identifier().prompt_id(chat("hi")) == identifier().prompt_id(chat("hi"))
    others = [
        identifier(tenant="u").prompt_id(chat("hi")),
        identifier(seed=b"z").prompt_id(chat("hi")),
        identifier().prompt_id(chat("hi ")),
        identifier().prompt_id([ChatMessage(role=Role.SYSTEM, content="hi")]),
        identifier().prompt_id(chat("h", "i")),
        identifier().prompt_id(chat("hi")),
    ]
    assert len(set(others)) == 6


def test_a_conversation_goes_on_while_its_beginning_stays() -> None:
    ids = identifier()
    first = ids.identify(chat("hi"), user="alice", conversation_id="")
    later = ids.identify(chat("hi", "hello", "more"), user="alice", conversation_id="")
    assert first.conversation_id == later.conversation_id
    assert first.prompt_id != later.prompt_id
    assert ids.identify(chat("hi"), user="bob", conversation_id="").conversation_id != first.conversation_id
    assert ids.identify(chat("ho"), user="alice", conversation_id="").conversation_id != first.conversation_id


def test_a_named_conversation_keeps_its_name() -> None:
    assert identifier().identify(chat("hi"), user="", conversation_id="c7").conversation_id == "c7"


def test_nobody_is_never_known_again() -> None:
    ids = identifier()
    one, two = (ids.identify(chat("hi"), user="", conversation_id="") for _ in range(2))
    assert len({one.rater_id, two.rater_id, one.conversation_id, two.conversation_id}) == 4


def test_a_pseudonym_tells_nothing() -> None:
    rater = identifier().rater_id("alice@example.org")
    assert "alice" not in rater and len(rater) == 32
    assert rater == identifier().rater_id("alice@example.org") != identifier(tenant="u").rater_id("alice@example.org")


def test_a_person_has_a_pseudonym_under_each_live_key() -> None:
    newest = ring(KeyUse.RATER, b"new").keys[0]
    older = replace(ring(KeyUse.RATER).keys[0], id="older", created_time=datetime(2025, 1, 1, tzinfo=UTC))
    rotated = Identifier(
        tenant="t",
        prompt_keys=ring(KeyUse.PROMPT),
        conversation_keys=ring(KeyUse.CONVERSATION),
        rater_keys=KeyRing(use=KeyUse.RATER, keys=(newest, older)),
        new_id=lambda: "random",
    )
    before = identifier().rater_id("alice")
    assert rotated.rater_ids("alice") == (rotated.rater_id("alice"), before)
    assert rotated.rater_id("alice") != before
    assert set(rotated.rater_ids("alice", tenant="u")).isdisjoint(rotated.rater_ids("alice"))
