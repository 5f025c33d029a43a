"""`thumbloop forget`: has a person forgotten, through the control port of a gateway, and says who still has to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from rich.console import Console
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from services.cli.learner_connection import credential
from services.cli.plain import plain
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES, load_topic_pages
from services.shared.domain.errors import DeadlineExceeded, InvalidInput, ThumbloopError, Unavailable
from services.shared.ids import new_id
from services.shared.settings import load_settings

FORGET_TIMEOUT_S = 70.0
LOOK_TIMEOUT_S = 10.0
LOOK_INTERVAL_S = 0.5
ATTEMPTS = 3
MILLISECONDS_A_DAY = 86_400_000
_ANSWER_LOST = (
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
)
"""The connection stood: the request may have arrived."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Whom to forget. `tenant` "" is the key's own, or the deployment's; `control_id` names the order, so that asking
    again is safe.
    """

    user: str
    tenant: str
    control_id: str


def control_client(url: str, data_dir: Path | None) -> httpx.Client:
    """HTTP to a gateway's control port, proving who calls; `url` "" is the settings'."""
    settings = load_settings()
    where = url or f"http://{settings.gateway.host}:{settings.gateway.control_port}"
    headers = {"Authorization": credential(settings, data_dir).authorization()}
    return httpx.Client(base_url=where, headers=headers, timeout=LOOK_TIMEOUT_S)


def ask(client: httpx.Client, wish: Wish) -> dict[str, Any]:
    """The gateway's answer. Asked again under the same order where none came."""
    path = f"/v1/users/{quote(wish.user, safe='')}"
    parameters = {"tenant": wish.tenant, "control_id": wish.control_id}
    return _call(client, "DELETE", path, parameters, timeout_s=FORGET_TIMEOUT_S, attempts=ATTEMPTS)


def look(client: httpx.Client, control_id: str) -> dict[str, Any]:
    """How far the order is."""
    return _call(client, "GET", f"/v1/controls/{control_id}", {}, timeout_s=LOOK_TIMEOUT_S, attempts=1)


def is_done(progress: dict[str, Any]) -> bool:
    """Kafka has the order, and everybody who is known has carried it out."""
    return progress["publish_time"] is not None and not progress["waiting_for"]


def wait_done(
    client: httpx.Client,
    control_id: str,
    *,
    timeout_s: float,
    tell: Callable[[dict[str, Any]], None],
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Polls; `tell` hears of each look. Raises DeadlineExceeded, which says who is waited for."""
    deadline = monotonic() + timeout_s
    while True:
        try:
            progress = look(client, control_id)
        except Unavailable:
            if monotonic() >= deadline:
                raise
        else:
            tell(progress)
            if is_done(progress):
                return progress
            if monotonic() >= deadline:
                waiting = ", ".join(progress["waiting_for"]) or "Kafka"
                raise DeadlineExceeded(
                    f"After {timeout_s:g} s these have not said that they forgot: {waiting}. The order stands, and they"
                    f" will when they are back; ask again: thumbloop forget --control {control_id}. A learner that does"
                    " not is waiting for its broker to delete dead letters; its log says why."
                )
        sleep(LOOK_INTERVAL_S)


def run_forget(*, user: str, tenant: str, yes: bool, wait_s: float, url: str, data_dir: Path | None) -> int:
    """Asks, forgets, waits, says what was done and what remains. Exit code: 0 done, 1 not confirmed by all."""
    console = Console()
    if not yes and not _confirmed(console, user):
        console.print("Nothing was done.")
        return 1
    wish = Wish(user=user, tenant=tenant, control_id=new_id())
    console.print(
        f"Giving order {wish.control_id}. Should its answer be lost, this says how far it is: thumbloop forget"
        f" --control {wish.control_id}",
        highlight=False,
        soft_wrap=True,
    )
    with control_client(url, data_dir) as client:
        answer = ask(client, wish)
        _print_answer(console, answer)
        code = _wait(console, client, answer["control_id"], wait_s)
    _print_remains(console)
    return code


def run_progress(*, control_id: str, wait_s: float, url: str, data_dir: Path | None) -> int:
    """The same for an order that was given before."""
    console = Console()
    with control_client(url, data_dir) as client:
        return _wait(console, client, control_id, wait_s)


def _wait(console: Console, client: httpx.Client, control_id: str, wait_s: float) -> int:
    told: list[str] = []

    def tell(progress: dict[str, Any]) -> None:
        line = _progress_words(progress)
        if [line] != told[-1:]:
            console.print(plain(line), highlight=False)
            told.append(line)

    if wait_s <= 0:
        progress = look(client, control_id)
        tell(progress)
        return 0 if is_done(progress) else 1
    wait_done(client, control_id, timeout_s=wait_s, tell=tell)
    console.print("[green]Everybody who is known has forgotten.[/]")
    return 0


def _confirmed(console: Console, user: str) -> bool:
    if not console.is_terminal:
        raise InvalidInput("This deletes for ever. Without a terminal to ask on, say --yes.", field="yes")
    typed = console.input(
        f"This deletes all that [bold]{plain(user)}[/] said and was told, for ever, and keeps it from being recorded "
        "again.\nType the user's name to go on: "
    )
    return typed.strip() == user


def _print_answer(console: Console, answer: dict[str, Any]) -> None:
    console.print(
        f"Order {plain(answer['control_id'])}: {answer['rollouts']} answers and {answer['feedback']} statements are "
        "deleted from the store.",
        highlight=False,
    )
    versions = answer["versions"]
    if not versions:
        console.print("No release learned from this person.")
        return
    console.print(f"{len(versions)} releases learned from this person. They are kept, and cannot be trained again:")
    for version in versions:
        console.print(f"  {plain(version)}", highlight=False)
    console.print("Releases that were trained from these go on from what they had learned.")


def _progress_words(progress: dict[str, Any]) -> str:
    done = ", ".join(progress["acknowledged_by"]) or "nobody yet"
    waiting = ", ".join(progress["waiting_for"]) or "nobody"
    if progress["publish_time"] is None:
        return "The order waits for Kafka."
    return f"Forgotten by: {done}. Waiting for: {waiting}."


def _print_remains(console: Console) -> None:
    """What no deletion reaches at once; said as it is."""
    days = max(load_topic_pages()[name].retention_ms for name in (ROLLOUTS, FEEDBACK, SCORES)) / MILLISECONDS_A_DAY
    console.print(
        "What remains: Kafka's topics rollouts, feedback and scores hold the person's events until their retention"
        f" has passed ({days:g} days by default); nothing that reads them takes these in again. Ids remain in"
        " tombstones, in lineages and in manifests of releases, and what releases learned remains in their weights."
        " Chats that were sent without `user` carry no name and cannot be found. Backups of the store are yours to see"
        " to.",
        highlight=False,
    )


def _call(
    client: httpx.Client, method: str, path: str, parameters: dict[str, str], *, timeout_s: float, attempts: int
) -> dict[str, Any]:
    """The answer's body. Raises ThumbloopError with the gateway's own words, Unavailable where none answers."""
    given = {name: value for name, value in parameters.items() if value}
    retrying = Retrying(
        retry=retry_if_exception_type(Unavailable),
        stop=stop_after_attempt(attempts),
        wait=wait_fixed(LOOK_INTERVAL_S),
        reraise=True,
    )
    return retrying(_call_once, client, method, path, given, timeout_s)


def _call_once(
    client: httpx.Client, method: str, path: str, parameters: dict[str, str], timeout_s: float
) -> dict[str, Any]:
    try:
        response = client.request(method, path, params=parameters, timeout=timeout_s)
    except _ANSWER_LOST as error:
        raise Unavailable(
            f"The gateway on the control port {client.base_url} was asked, but its answer did not come"
            f" ({type(error).__name__}: {error}). What was asked may have been done; asking again is safe."
        ) from error
    except httpx.TransportError as error:
        raise Unavailable(
            f"No gateway answers on the control port {client.base_url} ({error}). Start one (`thumbloop up`) or "
            "name it with --url."
        ) from error
    if response.is_error:
        raise _refused(response)
    body: dict[str, Any] = response.json()
    return body


def _refused(response: httpx.Response) -> ThumbloopError:
    try:
        message = str(response.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        message = f"The gateway answered {response.status_code}."
    return Unavailable(message) if response.status_code >= 500 else InvalidInput(message)
