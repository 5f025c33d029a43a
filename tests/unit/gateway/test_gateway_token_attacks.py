"""Ten thousand forged feedback tokens, none accepted: altered, cut, spliced, expired, re-signed, of another place.

Pass: every one is refused with Unauthenticated or PermissionDenied (anything else, or any acceptance, fails), while the
tokens that they were made from stay good. The seed is fixed, so that a failure can be run again.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from services.gateway.tokens import TOKEN_TYPE, FeedbackTokens
from services.shared.domain.errors import PermissionDenied, Unauthenticated
from services.shared.domain.feedback import FeedbackKind
from services.shared.secrets import Key, KeyRing, KeyUse

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FORGERIES = 10_000
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/~ \n\t\0é"
KNOWN_SECRET = b"known to the attacker, not ours!"

Forge = Callable[[random.Random], str]


def ring(*names: str, seed: bytes = b"s") -> KeyRing:
    made = (Key(id=name, secret=(name.encode() + seed) * 12, created_time=NOW) for name in names)
    return KeyRing(use=KeyUse.FEEDBACK_TOKEN, keys=tuple(made))


def tokens(
    keys: KeyRing | None = None, *, deployment: str = "prod", tenant: str = "acme", now: datetime = NOW
) -> FeedbackTokens:
    return FeedbackTokens(
        deployment=deployment, tenant=tenant, keys=keys or ring("new", "old"), ttl=timedelta(days=30), clock=lambda: now
    )


def issue(by: FeedbackTokens, draw: random.Random) -> str:
    return by.issue(
        rater_id=f"rater-{draw.randrange(10**6)}",
        rollout_id=f"rollout-{draw.randrange(10**6)}",
        prompt_id=f"prompt-{draw.randrange(100)}",
        kinds=draw.sample(list(FeedbackKind), 3),
    )


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def read(piece: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(piece + "=" * (-len(piece) % 4)))
    return found


class Attacker:
    """Holds good tokens of others and keys of its own; lacks the gateway's keys."""

    def __init__(self, draw: random.Random) -> None:
        self.good = [issue(tokens(), draw) for _ in range(1000)]
        self.rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ways: dict[str, Forge] = {
            "altered": self.altered,
            "truncated": self.truncated,
            "lengthened": self.lengthened,
            "swapped": self.swapped,
            "claims changed": self.claims_changed,
            "header changed": self.header_changed,
            "header no object": self.header_no_object,
            "alg none": self.alg_none,
            "alg RS256": self.alg_rs256,
            "wrong key": self.wrong_key,
            "expired": self.expired,
            "another deployment": lambda draw: issue(tokens(deployment=draw.choice(["staging", "PROD", ""])), draw),
            "another tenant": self.another_tenant,
            "another purpose": self.another_purpose,
            "noise": lambda draw: "".join(draw.choices(CHARACTERS, k=draw.randrange(300))),
        }

    def altered(self, draw: random.Random) -> str:
        token = list(draw.choice(self.good))
        for place in draw.sample(range(len(token)), draw.randrange(1, 4)):
            token[place] = draw.choice([other for other in CHARACTERS if other != token[place]])
        return "".join(token)

    def truncated(self, draw: random.Random) -> str:
        token = draw.choice(self.good)
        begin, end = sorted(draw.sample(range(len(token) + 1), 2))
        return token[begin:end] if (begin, end) != (0, len(token)) else token[1:]

    def lengthened(self, draw: random.Random) -> str:
        token = draw.choice(self.good)
        place = draw.randrange(len(token) + 1)
        return token[:place] + "".join(draw.choices(CHARACTERS, k=draw.randrange(1, 5))) + token[place:]

    def swapped(self, draw: random.Random) -> str:
        """Claims of one with the signature of another."""
        (head, _, signature), (_, claims, _) = (token.split(".") for token in draw.sample(self.good, 2))
        return f"{head}.{claims}.{signature}"

    def claims_changed(self, draw: random.Random) -> str:
        head, claims, signature = draw.choice(self.good).split(".")
        content = read(claims)
        name = draw.choice(list(content))
        content[name] = draw.choice(["another", 2**40, ["thumb", "all"], None, {}])
        return f"{head}.{part(content)}.{signature}"

    def header_changed(self, draw: random.Random) -> str:
        head, claims, signature = draw.choice(self.good).split(".")
        content = read(head)
        no_names: list[Any] = [1, None, [1], [[]], [{}]]
        changes: list[dict[str, Any]] = [
            {"kid": "old"},
            {"kid": ""},
            {"kid": None},
            {"kid": ["new"]},
            {"typ": "JWT"},
            {"alg": "HS512"},
            {"b64": False, "crit": ["b64"]},
            {"jwk": {"kty": "oct", "k": "AA"}},
            *({"crit": crit} for crit in no_names),
        ]
        return f"{part({**content, **draw.choice(changes)})}.{claims}.{signature}"

    def header_no_object(self, draw: random.Random) -> str:
        """Its header is JSON, but not of the kind that a header is."""
        _, claims, signature = draw.choice(self.good).split(".")
        header = draw.choice([1, None, "alg HS256", ["alg", "kid"], [["alg", "HS256"]]])
        return f"{part(header)}.{claims}.{signature}"

    def alg_none(self, draw: random.Random) -> str:
        head, claims, signature = draw.choice(self.good).split(".")
        header = {**read(head), "alg": draw.choice(["none", "None", "NONE", "nOnE", "", None])}
        return f"{part(header)}.{claims}.{draw.choice(['', signature])}"

    def alg_rs256(self, draw: random.Random) -> str:
        """Signed by the attacker's RSA key, under the name of one of ours."""
        headers = {"kid": draw.choice(["new", "old"]), "typ": TOKEN_TYPE}
        return jwt.encode(self.claims(draw), self.rsa_key, algorithm="RS256", headers=headers)

    def wrong_key(self, draw: random.Random) -> str:
        headers = {"kid": draw.choice(["new", "old", "unknown"]), "typ": TOKEN_TYPE}
        return jwt.encode(self.claims(draw), KNOWN_SECRET, algorithm="HS256", headers=headers)

    def expired(self, draw: random.Random) -> str:
        """Good once; its time has passed, by a second or by years."""
        return issue(tokens(now=NOW - timedelta(days=30, seconds=draw.choice([0, 1, 60, 10**8]))), draw)

    def another_tenant(self, draw: random.Random) -> str:
        """The tenant is the token's word alone, so it must not be changeable."""
        head, claims, signature = draw.choice(self.good).split(".")
        tenant = f"{draw.choice(['other', 'acme ', 'Acme', ''])}{draw.choice(['', draw.randrange(1000)])}"
        return f"{head}.{part({**read(claims), 'ten': tenant})}.{signature}"

    def another_purpose(self, draw: random.Random) -> str:
        """Signed by the gateway's own key, but no feedback token."""
        claims, kind = self.claims(draw), TOKEN_TYPE
        if draw.random() < 0.5:
            kind = draw.choice(["JWT", "at+jwt", ""])
        else:
            claims.pop(draw.choice(list(claims)))
        headers = {"kid": "new", "typ": kind}
        return jwt.encode(claims, ring("new").newest.secret, algorithm="HS256", headers=headers)

    def claims(self, draw: random.Random) -> dict[str, Any]:
        return read(draw.choice(self.good).split(".")[1])

    def forgeries(self, draw: random.Random) -> Iterator[tuple[str, str]]:
        """Each way in turn, without end; none twice."""
        seen: set[str] = set()
        for name in cycle(self.ways):
            forged = self.ways[name](draw)
            if forged not in seen:
                seen.add(forged)
                yield name, forged


@pytest.mark.timeout(60)
def test_ten_thousand_forgeries_none_accepted() -> None:
    draw = random.Random(20261122)
    gateway, attacker = tokens(), Attacker(draw)
    refused: Counter[str] = Counter()
    good = frozenset(attacker.good)
    for name, forged in islice(attacker.forgeries(draw), FORGERIES):
        assert forged not in good, f"{name}: this is no forgery"
        try:
            claims = gateway.check(forged)
        except (Unauthenticated, PermissionDenied):
            refused[name] += 1
        else:
            pytest.fail(f"accepted a token that was {name}: {forged!r} as {claims}")
    assert sum(refused.values()) == FORGERIES
    assert min(refused[name] for name in attacker.ways) > 500
    for token in attacker.good:
        gateway.check(token)


def test_two_keys_live_while_they_rotate_and_a_removed_one_is_dead() -> None:
    draw = random.Random(1)
    before = issue(tokens(ring("old")), draw)
    tokens(ring("new", "old")).check(before)
    with pytest.raises(Unauthenticated):
        tokens(ring("new")).check(before)
