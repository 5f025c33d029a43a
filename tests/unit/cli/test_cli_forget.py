"""`thumbloop forget`: asks first, is safe to repeat, follows who has forgotten, and says what remains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from services.cli import forget
from services.cli.forget import Wish, ask, is_done, wait_done
from services.cli.main import app
from services.shared.domain.errors import DeadlineExceeded, InvalidInput, Unavailable
from tests.support.access import credential_of

ORDER = "01993f35-90b3-7a02-b9c4-6d18e5f30a66"
ANSWER = {"control_id": ORDER, "rollouts": 3, "feedback": 7, "versions": ["rm-1", "p-2"]}


def progress(*waiting: str, published: bool = True) -> dict[str, Any]:
    return {
        "control_id": ORDER,
        "publish_time": "2026-01-01T12:00:00Z" if published else None,
        "acknowledged_by": ["learner"],
        "waiting_for": list(waiting),
    }


class Gateway:
    """A control port that answers from a list, in turn; the last answer stays."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url="http://control", transport=httpx.MockTransport(self))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "LOOK_INTERVAL_S", 0.0)


def says(status: int, body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(status, json=body)


def test_asking_again_is_the_same_order() -> None:
    gateway = Gateway(httpx.ConnectError("away"), says(503, {}), says(202, ANSWER))
    with gateway.client() as client:
        assert ask(client, Wish(user="a/b c", tenant="t", control_id=ORDER)) == ANSWER
    urls = {str(request.url) for request in gateway.requests}
    assert urls == {f"http://control/v1/users/a%2Fb%20c?tenant=t&control_id={ORDER}"}
    assert len(gateway.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("away"), Unavailable),
        (says(503, {"error": {"message": "the learner is away"}}), Unavailable),
        (says(400, {"error": {"message": "bad user"}}), InvalidInput),
        (httpx.Response(403, text="no json"), InvalidInput),
    ],
)
def test_what_goes_wrong_is_said(answer: httpx.Response | Exception, error: type[Exception]) -> None:
    with Gateway(answer).client() as client, pytest.raises(error):
        ask(client, Wish(user="a", tenant="", control_id=ORDER))


@pytest.mark.parametrize(
    "lost", [httpx.ReadTimeout("timed out"), httpx.ReadError("cut"), httpx.RemoteProtocolError("closed")]
)
def test_an_answer_that_is_lost_is_not_taken_for_a_gateway_that_is_away(lost: Exception) -> None:
    with Gateway(lost).client() as client, pytest.raises(Unavailable) as refused:
        ask(client, Wish(user="a", tenant="", control_id=ORDER))
    assert "again is safe" in refused.value.message and "No gateway answers" not in refused.value.message


@pytest.mark.parametrize("away", [httpx.ConnectError("refused"), httpx.ConnectTimeout("no route")])
def test_a_gateway_that_is_not_reached_is_called_away(away: Exception) -> None:
    with Gateway(away).client() as client, pytest.raises(Unavailable, match="No gateway answers"):
        ask(client, Wish(user="a", tenant="", control_id=ORDER))


def test_waiting_ends_when_nobody_is_waited_for() -> None:
    looks = [progress(published=False), progress("gateway-0", "reward-0"), progress("reward-0"), progress()]
    heard: list[dict[str, Any]] = []
    with Gateway(*(says(200, look) for look in looks)).client() as client:
        assert is_done(wait_done(client, ORDER, timeout_s=60, tell=heard.append))
    assert heard == looks


def test_waiting_has_a_deadline_and_names_who_is_waited_for() -> None:
    time = ticking()
    with Gateway(says(200, progress("reward-7"))).client() as client, pytest.raises(DeadlineExceeded) as late:
        wait_done(client, ORDER, timeout_s=3, tell=lambda _: None, monotonic=time, sleep=lambda _: None)
    assert "reward-7" in late.value.message and ORDER in late.value.message


def ticking() -> Callable[[], float]:
    seconds: Iterator[float] = iter(float(number) for number in range(1000))
    return lambda: next(seconds)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gateway:
    credential_of(tmp_path).authorization()
    gateway = Gateway(says(202, ANSWER), says(200, progress("reward-0")), says(200, progress()))
    client = httpx.Client

    def make(**options: Any) -> httpx.Client:
        return client(**options, transport=httpx.MockTransport(gateway))

    monkeypatch.setattr(httpx, "Client", make)
    return gateway


def test_the_command_says_what_was_done_and_what_remains(gateway: Gateway, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["forget", "--user", "alice", "--yes", "--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    for part in ("3 answers and 7 statements", "p-2", "rm-1", "Waiting for: reward-0", "7 days", "tombstones"):
        assert part in words
    assert gateway.requests[0].method == "DELETE"
    assert gateway.requests[0].headers["authorization"].startswith("Bearer ")


def test_the_order_is_named_even_if_its_answer_is_lost(gateway: Gateway, tmp_path: Path) -> None:
    gateway.answers = [httpx.ReadTimeout("timed out")]
    done = CliRunner().invoke(app, ["forget", "--user", "alice", "--yes", "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    asked = {request.url.params["control_id"] for request in gateway.requests}
    assert len(asked) == 1
    assert f"thumbloop forget --control {asked.pop()}" in " ".join(done.output.split())


def test_without_a_terminal_it_wants_yes(gateway: Gateway, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["forget", "--user", "alice", "--data-dir", str(tmp_path)])
    assert (done.exit_code, gateway.requests) == (1, [])
    assert "--yes" in done.output


def test_a_former_order_is_looked_at_alone(gateway: Gateway, tmp_path: Path) -> None:
    gateway.answers.pop(0)
    done = CliRunner().invoke(app, ["forget", "--control", ORDER, "--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {request.method for request in gateway.requests} == {"GET"}


@pytest.mark.parametrize(("waiting", "code"), [(("reward-0",), 1), ((), 0)])
def test_without_waiting_the_exit_code_says_how_far_it_is(
    gateway: Gateway, tmp_path: Path, waiting: tuple[str, ...], code: int
) -> None:
    gateway.answers[1:] = [says(200, progress(*waiting))]
    words = ["forget", "--user", "alice", "--yes", "--no-wait", "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, len(gateway.requests)) == (code, 2), done.output
    assert "What remains" in done.output


def test_user_or_order_not_both_and_not_none() -> None:
    assert CliRunner().invoke(app, ["forget"]).exit_code == 1
    assert CliRunner().invoke(app, ["forget", "--user", "a", "--control", ORDER]).exit_code == 1


def test_without_anything_that_proves_who_asks_nothing_is_asked(gateway: Gateway, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["forget", "--user", "alice", "--yes", "--data-dir", str(tmp_path / "elsewhere")])
    assert (done.exit_code, gateway.requests) == (1, [])
