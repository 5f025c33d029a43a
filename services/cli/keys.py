"""`thumbloop keys`: makes, lists and revokes API keys at the learner. A key's secret is made here and stays here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.cli.learner_connection import CALL_TIMEOUT_S, learner, own_tenant
from services.cli.plain import plain
from services.shared.access.keys import mint_key
from services.shared.access.scopes import Scope
from services.shared.access.wire import scopes_to_proto
from services.shared.domain.errors import DeadlineExceeded, InvalidInput, Unavailable
from services.shared.rpc import error_from_rpc
from services.shared.settings import load_settings

ATTEMPTS = 3
NEVER = "never"
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def create_key(
    *, name: str, scopes: str, tenant: str, expires: str, address: str, data_dir: Path | None, now: datetime
) -> tuple[str, learner_pb2.ApiKey]:
    """The new key's text and what the learner stores of it. Asked again after a lost answer, it makes no second key."""
    minted = mint_key()
    request = learner_pb2.CreateApiKeyRequest(
        key_id=minted.key_id,
        tenant=tenant or own_tenant(load_settings()),
        name=name,
        scopes=scopes_to_proto(parse_scopes(scopes)),
        secret_digest=minted.secret_digest,
    )
    expire_time = parse_expiry(expires, now=now)
    if expire_time is not None:
        request.expire_time.FromDatetime(expire_time)
    with learner(address, data_dir) as stub:
        return minted.text, _create(stub, request)


def print_new_key(
    *, name: str, scopes: str, tenant: str, expires: str, address: str, data_dir: Path | None, bare: bool
) -> None:
    """The key on standard output: once, and never again. `bare`: the key alone, for scripts."""
    text, key = create_key(
        name=name,
        scopes=scopes,
        tenant=tenant,
        expires=expires,
        address=address,
        data_dir=data_dir,
        now=datetime.now(UTC),
    )
    if bare:
        print(text)
        return
    console = Console()
    console.print(f"[bold green]{text}[/]", soft_wrap=True, highlight=False)
    console.print(
        f"\nKey [bold]{key.key_id}[/] of tenant {plain(key.tenant)}: {_scope_words(key)}; expires "
        f"{_expiry_words(key)}.\nThis is the only time that it is shown; Thumbloop keeps its digest alone. It works in "
        "every room within seconds.\nSend it as  Authorization: Bearer KEY  (the `api_key` of an OpenAI client).",
        highlight=False,
    )


def print_keys(*, tenant: str, address: str, data_dir: Path | None) -> None:
    """A table, a key a row, newest first."""
    with learner(address, data_dir) as stub:
        found = stub.ListApiKeys(learner_pb2.ListApiKeysRequest(tenant=tenant), timeout=CALL_TIMEOUT_S)
    table = Table(title="API keys, newest first")
    for column in ("key id", "name", "tenant", "scopes", "made", "expires", "state"):
        table.add_column(column, overflow="fold")
    now = datetime.now(UTC)
    for key in found.keys:
        made = _minute(key.create_time.ToDatetime())
        words = (_scope_words(key), made, _expiry_words(key), state_words(key, now=now))
        table.add_row(*map(plain, (key.key_id, key.name, key.tenant, *words)))
    Console().print(table)


def print_revoked(*, key_id: str, address: str, data_dir: Path | None) -> None:
    """Says since when it is revoked."""
    with learner(address, data_dir) as stub:
        key = stub.RevokeApiKey(learner_pb2.RevokeApiKeyRequest(key_id=key_id), timeout=CALL_TIMEOUT_S).key
    Console().print(
        f"Key {key.key_id} ({plain(key.name)}) is revoked since {_minute(key.revoke_time.ToDatetime())} UTC, for ever. "
        f"Every room that reaches the learner refuses it within {load_settings().access.snapshot_interval_s:g} s.",
        highlight=False,
    )


def parse_scopes(text: str) -> frozenset[Scope]:
    """`chat,score`. Raises InvalidInput."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = {str(scope) for scope in Scope}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InvalidInput(
            f"--scopes {text!r}: name at least one of {', '.join(Scope)}, with commas between them.", field="scopes"
        )
    return frozenset(Scope(name) for name in names)


def parse_expiry(text: str, *, now: datetime) -> datetime | None:
    """`90d`, `12h`, `30m`, `4w`, a date such as 2030-01-31 (its begin, UTC), or `never`. Raises InvalidInput."""
    if text == NEVER:
        return None
    span = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if span:
        try:
            return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        except OverflowError as error:
            raise InvalidInput(
                f"--expires {text}: that is past the year 9999. Say never, or a shorter time.", field="expires"
            ) from error
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(
            f"--expires {text!r}: say 90d, 12h, 30m, 4w, a date such as 2030-01-31, or never.", field="expires"
        ) from error
    if day <= now:
        raise InvalidInput(f"--expires {text}: that is past.", field="expires")
    return day


def state_words(key: learner_pb2.ApiKey, *, now: datetime) -> str:
    """live, expired, or since when it is revoked."""
    if key.HasField("revoke_time"):
        return f"revoked {_minute(key.revoke_time.ToDatetime())}"
    expired = key.HasField("expire_time") and key.expire_time.ToDatetime(tzinfo=UTC) <= now
    return "expired" if expired else "live"


def _create(stub: learner_pb2_grpc.LearnerServiceStub, request: learner_pb2.CreateApiKeyRequest) -> learner_pb2.ApiKey:
    """The same request again where no answer came: its id makes that safe."""
    for _ in range(ATTEMPTS - 1):
        try:
            return stub.CreateApiKey(request, timeout=CALL_TIMEOUT_S).key
        except grpc.RpcError as error:
            if not isinstance(error_from_rpc(error), (Unavailable, DeadlineExceeded)):
                raise
    return stub.CreateApiKey(request, timeout=CALL_TIMEOUT_S).key


def _scope_words(key: learner_pb2.ApiKey) -> str:
    return ", ".join(learner_pb2.Scope.Name(scope).removeprefix("SCOPE_").lower() for scope in key.scopes)


def _expiry_words(key: learner_pb2.ApiKey) -> str:
    return _minute(key.expire_time.ToDatetime()) if key.HasField("expire_time") else NEVER


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")
