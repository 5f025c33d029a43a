"""Keys: how they look, what is kept of them, what a scope allows."""

from __future__ import annotations

import re

import pytest

from services.shared.access import Principal, Scope, digest_of, mint_key, parse_key
from services.shared.access.bearer import presented
from services.shared.access.keys import proves
from services.shared.domain.errors import PermissionDenied, Unauthenticated


def test_a_minted_key_is_found_again() -> None:
    minted = mint_key()
    assert re.fullmatch(r"tl_[a-z0-9]{12}_[0-9a-f]{64}", minted.text)
    key_id, secret = parse_key(minted.text)
    assert key_id == minted.key_id
    assert digest_of(secret) == minted.secret_digest and secret not in minted.secret_digest
    assert proves(secret, minted.secret_digest) and not proves(secret[::-1], minted.secret_digest)


def test_no_two_keys_are_alike() -> None:
    minted = [mint_key() for _ in range(100)]
    assert len({key.key_id for key in minted}) == len({key.secret_digest for key in minted}) == 100


def test_a_key_does_not_show_in_logs() -> None:
    minted = mint_key()
    assert minted.text not in repr(minted) and parse_key(minted.text)[1] not in repr(minted)


WHOLE = "tl_abcdefghijk1_" + "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "tl_",
        WHOLE[:-1],
        WHOLE + "0",
        WHOLE + "\n",
        " " + WHOLE,
        WHOLE.upper(),
        WHOLE.replace("tl_", "sk_"),
        WHOLE.replace("a", "ä"),
        WHOLE.replace("0", "٠"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        parse_key(text)
    assert refused.value.reason == "API_KEY_MALFORMED"
    assert "tl_<12 characters>" in refused.value.message and (len(text) < 5 or text not in refused.value.message)


def test_a_bearer_header_is_read_as_rfc_6750_writes_it() -> None:
    assert presented("Bearer abc") == presented("bearer  abc ") == presented("BEARER abc") == "abc"


@pytest.mark.parametrize("header", ["", " ", "Bearer", "Bearer ", "Feedback abc", "abc"])
def test_a_header_without_a_key_says_what_to_send(header: str) -> None:
    with pytest.raises(Unauthenticated, match="Bearer KEY") as refused:
        presented(header)
    assert refused.value.reason == "API_KEY_MISSING"


def principal(*scopes: Scope) -> Principal:
    return Principal(key_id="k" * 12, tenant="acme", name="n", scopes=frozenset(scopes))


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_allows_itself_alone_and_admin_allows_all(scope: Scope) -> None:
    holder = principal(scope)
    allowed = {wanted for wanted in Scope if holder.may(wanted)}
    assert allowed == (set(Scope) if scope is Scope.ADMIN else {scope})
    holder.require(scope)
    principal(Scope.ADMIN).require(scope)


def test_a_key_without_scopes_allows_nothing() -> None:
    assert not any(principal().may(scope) for scope in Scope)


def test_a_wrong_scope_and_a_wrong_tenant_are_told() -> None:
    with pytest.raises(PermissionDenied, match="has the scope chat, and this needs score"):
        principal(Scope.CHAT).require(Scope.SCORE)
    principal(Scope.CHAT).require_tenant("acme")
    for scope in (Scope.CHAT, Scope.ADMIN):
        with pytest.raises(PermissionDenied, match="belongs to tenant 'acme'"):
            principal(scope).require_tenant("other")
