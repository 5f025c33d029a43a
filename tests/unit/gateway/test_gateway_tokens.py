"""Feedback tokens: what was signed comes back, and nothing else is accepted."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from services.gateway.tokens import FeedbackTokens, TokenKeys
from services.shared.domain.errors import PermissionDenied, Unauthenticated
from services.shared.domain.feedback import FeedbackKind
from services.shared.followed_ring import LOOK_AGAIN_S, SETTLE, FollowedRing
from services.shared.secrets import Key, KeyRing, KeyUse, load_or_create

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n!é"


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def key(name: str, seed: bytes, minutes: int = 0) -> Key:
    return Key(id=name, secret=seed * 32, created_time=NOW + timedelta(minutes=minutes))


def ring(*keys: Key) -> KeyRing:
    return KeyRing(use=KeyUse.FEEDBACK_TOKEN, keys=keys)


def maker(
    keys: TokenKeys, *, deployment: str = "prod", tenant: str = "t", clock: Time | None = None, days: float = 30
) -> FeedbackTokens:
    return FeedbackTokens(
        deployment=deployment, tenant=tenant, keys=keys, ttl=timedelta(days=days), clock=clock or Time()
    )


def issue(tokens: FeedbackTokens, rollout: str = "r1", rater: str = "alice") -> str:
    return tokens.issue(rater_id=rater, rollout_id=rollout, prompt_id="p", kinds=[FeedbackKind.THUMB])


def test_what_was_signed_comes_back() -> None:
    claims = maker(ring(key("k1", b"a"))).check(issue(maker(ring(key("k1", b"a")))))
    assert (claims.tenant, claims.rater_id, claims.rollout_id, claims.prompt_id) == ("t", "alice", "r1", "p")
    assert claims.kinds == (FeedbackKind.THUMB,)
    assert claims.expiry == NOW + timedelta(days=30)
    assert claims.key_id == "k1"


def test_claims_have_the_names_that_the_contract_gives() -> None:
    token = issue(maker(ring(key("k1", b"a"))))
    assert set(jwt.decode(token, options={"verify_signature": False})) == {
        "dep",
        "ten",
        "rtr",
        "rol",
        "prm",
        "knd",
        "exp",
    }
    assert jwt.get_unverified_header(token)["kid"] == "k1"


def test_two_live_keys() -> None:
    old, new = key("old", b"a"), key("new", b"b", 1)
    before = issue(maker(ring(old)))
    both = maker(ring(new, old))
    assert both.check(before).key_id == "old"
    assert both.check(issue(both)).key_id == "new"
    with pytest.raises(Unauthenticated):
        maker(ring(new)).check(before)


@pytest.mark.parametrize("warm", [False, True], ids=["new", "after a good one"])
def test_every_single_character_altered_is_refused(warm: bool) -> None:
    tokens = maker(ring(key("k1", b"a")))
    token = issue(tokens)
    assert not warm or tokens.check(token)
    draw = random.Random(0)
    for place in range(len(token)):
        for _ in range(4):
            other = draw.choice(ALPHABET)
            if other == token[place]:
                continue
            with pytest.raises(Unauthenticated):
                tokens.check(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("warm", [False, True], ids=["new", "after a good one"])
def test_the_unused_bits_of_the_last_character_are_not_free(warm: bool) -> None:
    tokens = maker(ring(key("k1", b"a")))
    token = issue(tokens)
    assert not warm or tokens.check(token)
    accepted = [last for last in ALPHABET if _accepts(tokens, token[:-1] + last)]
    assert accepted == [token[-1]]


@pytest.mark.parametrize("warm", [False, True], ids=["new", "after a good one"])
def test_truncated_lengthened_and_foreign_are_refused(warm: bool) -> None:
    tokens = maker(ring(key("k1", b"a")))
    token = issue(tokens)
    assert not warm or tokens.check(token)
    wrong = [token[:length] for length in range(len(token))]
    wrong += [token.replace(".", ".e30.", 1), token + "\udc80", token.rpartition(".")[0] + ".\udc80"]
    wrong += [token + more for more in (".", "A", "=", "\n", " ", ".e30")] + [" " + token, token.replace(".", "..")]
    wrong += ["", "...", "a.b.c", "x" * 5000, "é.é.é"]
    for bad in wrong:
        with pytest.raises(Unauthenticated):
            tokens.check(bad)


def test_parts_of_two_tokens_make_none() -> None:
    tokens = maker(ring(key("k1", b"a")))
    one, two = issue(tokens, "r1").split("."), issue(tokens, "r2").split(".")
    for mixed in (
        (one[0], two[1], one[2]),
        (one[0], one[1], two[2]),
        (two[0], two[1], one[2]),
    ):
        with pytest.raises(Unauthenticated):
            tokens.check(".".join(mixed))


def test_another_key_under_a_known_name_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        maker(ring(key("k1", b"a"))).check(issue(maker(ring(key("k1", b"b")))))


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_the_algorithm_is_not_the_senders_choice(algorithm: str) -> None:
    claims = {"dep": "prod", "ten": "t", "rtr": "a", "rol": "r", "prm": "p", "knd": ["thumb"], "exp": 2**40}
    secret: Any = None if algorithm == "none" else b"a" * 64
    token = jwt.encode(claims, secret, algorithm=algorithm, headers={"kid": "k1", "typ": "feedback+jwt"})
    with pytest.raises(Unauthenticated):
        maker(ring(key("k1", b"a" * 2))).check(token)


def test_a_jwt_of_another_purpose_is_refused() -> None:
    claims = {"dep": "prod", "ten": "t", "rtr": "a", "rol": "r", "prm": "p", "knd": ["thumb"], "exp": 2**40}
    for body, kind in ((claims, "JWT"), ({"exp": 2**40}, "feedback+jwt")):
        token = jwt.encode(body, b"a" * 32, algorithm="HS256", headers={"kid": "k1", "typ": kind})
        with pytest.raises(Unauthenticated):
            maker(ring(key("k1", b"a"))).check(token)


def test_expiry_is_the_clocks() -> None:
    clock = Time()
    tokens = maker(ring(key("k1", b"a")), clock=clock, days=1)
    token = issue(tokens)
    clock.now = NOW + timedelta(days=1, seconds=-1)
    tokens.check(token)
    clock.now = NOW + timedelta(days=1)
    with pytest.raises(Unauthenticated, match="expired") as caught:
        tokens.check(token)
    assert caught.value.reason == "FEEDBACK_TOKEN_EXPIRED"


def test_another_deployment_is_denied() -> None:
    keys = ring(key("k1", b"a"))
    with pytest.raises(PermissionDenied):
        maker(keys, deployment="staging").check(issue(maker(keys)))


def test_two_gateways_agree_while_a_key_is_rotated(tmp_path: Path) -> None:
    """One looks at the file, and starts again, before the other does: neither refuses what the other has signed."""
    clock, seconds = Time(), [0.0, 0.0]

    def gateway(number: int) -> FeedbackTokens:
        ring = FollowedRing(tmp_path, KeyUse.FEEDBACK_TOKEN, clock=clock, monotonic=lambda: seconds[number])
        return maker(ring, clock=clock)

    early, late = gateway(0), gateway(1)
    before = issue(early)
    clock.now += SETTLE
    rewrite(tmp_path, add=("new", clock.now))
    seconds[0] += LOOK_AGAIN_S
    for first in (early, gateway(0)):
        token = issue(first)
        assert late.check(token).key_id == early.check(token).key_id == early.check(before).key_id
    seconds[1] += LOOK_AGAIN_S
    assert late.check(before).key_id != "new", "it knows both"
    clock.now += SETTLE
    assert {one.check(issue(other)).key_id for one in (early, late) for other in (early, late)} == {"new"}
    assert early.check(before) and late.check(before)
    rewrite(tmp_path, keep={"new"})
    seconds[:] = [100.0, 100.0]
    for one in (early, late):
        assert one.check(issue(one)).key_id == "new"
        with pytest.raises(Unauthenticated, match="not one of this gateway"):
            one.check(before)


def rewrite(folder: Path, *, keep: set[str] | None = None, add: tuple[str, datetime] | None = None) -> None:
    """Puts another file in place, as an operator does; `keep` None: all that are there."""
    path = folder / "feedback-token.json"
    document = json.loads(path.read_text())
    keys = [entry for entry in document["keys"] if keep is None or entry["id"] in keep]
    if add is not None:
        secret = base64.b64encode(b"n" * 32).decode()
        keys.append({"id": add[0], "secret": secret, "created_time": add[1].isoformat()})
    other = folder / "other.json"
    other.write_text(json.dumps({**document, "keys": keys}))
    other.replace(path)


def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    token = issue(maker(load_or_create(tmp_path, KeyUse.FEEDBACK_TOKEN, Time())))
    assert maker(load_or_create(tmp_path, KeyUse.FEEDBACK_TOKEN, Time())).check(token).rollout_id == "r1"


def _accepts(tokens: FeedbackTokens, token: str) -> bool:
    try:
        tokens.check(token)
    except Unauthenticated:
        return False
    return True
