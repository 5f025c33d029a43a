"""Both clients against a gateway that is scripted answer by answer; the wire's shapes are the gateway's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from services.client import AnswerFinished, AnswerText, AsyncThumbloopClient, ThumbloopClient, gather
from services.shared.domain.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PermissionDenied,
    ThumbloopError,
    Unauthenticated,
    Unavailable,
)

BASE_URL = "http://gateway.test"
SPANS = [
    {"policy_version": "p-1", "begin": 0, "end": 2, "kv_history": "fresh"},
    {"policy_version": "p-2", "begin": 2, "end": 5, "kv_history": "kept"},
]
FATE = {
    "feedback_id": "f-1",
    "state": "joined",
    "reason": "",
    "rollout_id": "r-0",
    "kind": "thumb",
    "revision": 5,
    "trained_into": ["p-2"],
    "trained_into_through_reward_model": [],
    "reward_model_versions": ["rm-1"],
}
Step = httpx.Response | Exception


class Gateway:
    """Answers from a script and keeps what it was asked."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def body(self, index: int = 0) -> Any:
        return json.loads(self.requests[index].content)


class Blocking:
    """The async client behind the sync client's methods, so that one suite holds both."""

    def __init__(self, gateway: Gateway) -> None:
        async def sleep(seconds: float) -> None:
            gateway.slept.append(seconds)

        self._client = AsyncThumbloopClient(BASE_URL, transport=httpx.MockTransport(gateway), sleep=sleep)

    def stream(self, *args: Any, **options: Any) -> Iterator[Any]:
        async def everything() -> tuple[list[Any], ThumbloopError | None]:
            parts: list[Any] = []
            stream: AsyncIterator[Any] = self._client.stream(*args, **options)
            try:
                async for part in stream:
                    parts.append(part)
            except ThumbloopError as error:
                return parts, error
            return parts, None

        parts, error = asyncio.run(everything())
        yield from parts
        if error is not None:
            raise error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: asyncio.run(getattr(self._client, name)(*args, **options))


def sync_client(gateway: Gateway) -> ThumbloopClient:
    return ThumbloopClient(BASE_URL, transport=httpx.MockTransport(gateway), sleep=gateway.slept.append)


@pytest.fixture(params=[sync_client, Blocking], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Callable[[Gateway], Any]:
    made: Callable[[Gateway], Any] = request.param
    return made


def details(index: int, *, token: str | None = "token") -> dict[str, Any]:
    return {
        "rollout_id": f"r-{index}",
        "policy_version": "p-1",
        "feedback_token": token and f"{token}-{index}",
        "conversation_id": "c",
        "prompt_id": "p",
        "kinds": ["thumb"],
    }


def completion(count: int = 1, token: str | None = "token") -> httpx.Response:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": f"answer {index}"},
            "finish_reason": "stop",
            "thumbloop": {**details(index, token=token), "spans": SPANS},
        }
        for index in range(count)
    ]
    return httpx.Response(200, json={"object": "chat.completion", "choices": choices})


def error(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"error": {"message": "Mend it so.", "type": "t", "param": "messages[0]", "code": code}}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): v for name, v in headers.items()})


def accepted() -> httpx.Response:
    return httpx.Response(200, json={"feedback_id": "f-1", "state": "accepted", "revision": 7})


def test_an_answer_carries_what_is_needed_to_rate_it(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway(completion())
    answer = connect(gateway).chat("Hello", max_tokens=8, conversation_id="c-1", stop=("\n",))
    assert (answer.text, answer.rollout_id, answer.feedback_token) == ("answer 0", "r-0", "token-0")
    assert [(span.policy_version, span.begin, span.end) for span in answer.spans] == [("p-1", 0, 2), ("p-2", 2, 5)]
    assert gateway.body() == {
        "model": "thumbloop",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 8,
        "stop": ["\n"],
        "metadata": {"conversation_id": "c-1"},
        "n": 1,
        "stream": False,
    }


def test_several_answers_have_tokens_of_their_own(connect: Callable[[Gateway], Any]) -> None:
    answers = connect(Gateway(completion(3))).chat_many([{"role": "user", "content": "Hi"}], n=3)
    assert [answer.feedback_token for answer in answers] == ["token-0", "token-1", "token-2"]


def test_an_answer_that_is_not_stored_cannot_be_rated(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway(completion(token=None))
    client = connect(gateway)
    answer = client.chat("Hi", store=False)
    assert answer.feedback_token == ""
    with pytest.raises(InvalidInput, match="store"):
        client.thumb(answer.feedback_token, up=True)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, InvalidInput),
        (401, Unauthenticated),
        (403, PermissionDenied),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (429, Busy),
        (500, ThumbloopError),
        (503, Unavailable),
        (504, DeadlineExceeded),
    ],
)
def test_errors_are_typed_and_a_chat_is_never_sent_again(
    connect: Callable[[Gateway], Any], status: int, cls: type[ThumbloopError]
) -> None:
    gateway = Gateway(error(status, "some_reason", retry_after="2"))
    with pytest.raises(ThumbloopError) as info:
        connect(gateway).chat("Hi")
    assert type(info.value) is cls
    assert (info.value.message, info.value.reason) == ("Mend it so.", "SOME_REASON")
    assert (info.value.field, info.value.retry_after) == ("messages[0]", 2.0)
    assert len(gateway.requests) == 1


def test_a_proxy_s_page_is_no_answer(connect: Callable[[Gateway], Any]) -> None:
    with pytest.raises(Unavailable, match="HTTP 502"):
        connect(Gateway(httpx.Response(502, text="<html>Bad gateway</html>"))).chat("Hi")


def test_a_thumb_is_sent_again_under_the_same_id_until_it_is_durable(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway(
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        error(503, "kafka_away", retry_after="3"),
        error(429, "busy"),
        error(408, "body_timeout"),
        accepted(),
    )
    receipt = connect(gateway).thumb("token", up=True)
    assert (receipt.feedback_id, receipt.state, receipt.revision) == ("f-1", "accepted", 7)
    bodies = [gateway.body(index) for index in range(6)]
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["feedback_id"]
    assert (bodies[0]["kind"], bodies[0]["value"]) == ("thumb", "up")
    assert len(gateway.slept) == 5
    assert gateway.slept[2] == 3.0
    assert all(0 < seconds <= 5.2 for seconds in gateway.slept)


def test_a_thumb_s_own_id_and_revision_are_sent(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway(accepted())
    connect(gateway).thumb("token", up=False, feedback_id="mine", revision=3)
    assert gateway.body() == {
        "token": "token",
        "kind": "thumb",
        "value": "down",
        "feedback_id": "mine",
        "revision": 3,
    }


@pytest.mark.parametrize(
    ("say", "body"),
    [
        (lambda client: client.thumb("t", up=True), {"kind": "thumb", "value": "up"}),
        (lambda client: client.rate("t", 4), {"kind": "rating", "value": 4}),
        (lambda client: client.compare("t", "other"), {"kind": "comparison", "rejected_token": "other"}),
        (lambda client: client.edit("t", "Better."), {"kind": "edit", "text": "Better."}),
        (lambda client: client.comment("t", "Too long."), {"kind": "comment", "text": "Too long."}),
        (lambda client: client.retract("t"), {"kind": "thumb", "retracted": True}),
        (lambda client: client.retract("t", "edit", revision=9), {"kind": "edit", "retracted": True, "revision": 9}),
    ],
)
def test_every_kind_is_sent_under_an_id_of_its_own(
    connect: Callable[[Gateway], Any], say: Callable[[Any], Any], body: dict[str, Any]
) -> None:
    gateway = Gateway(error(503, "log_unavailable"), accepted(), accepted())
    client = connect(gateway)
    assert say(client).state == "accepted"
    first, again = gateway.body(0), gateway.body(1)
    assert first == again, "the same again, under the same id"
    assert {**first, "feedback_id": ""} == {"token": "t", "feedback_id": "", **body}
    say(client)
    assert gateway.body(2)["feedback_id"] not in ("", first["feedback_id"])


def test_what_has_no_token_cannot_be_compared(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway()
    for chosen, rejected in (("t", ""), ("", "t")):
        with pytest.raises(InvalidInput, match="store"):
            connect(gateway).compare(chosen, rejected)
    assert gateway.requests == []


@pytest.mark.parametrize("status", [400, 401, 403, 409])
def test_a_refused_thumb_is_not_sent_again(connect: Callable[[Gateway], Any], status: int) -> None:
    gateway = Gateway(error(status, "no"))
    with pytest.raises(ThumbloopError):
        connect(gateway).thumb("token", up=True)
    assert len(gateway.requests) == 1


def test_a_thumb_is_given_up_when_its_time_has_passed() -> None:
    gateway = Gateway(*[error(503, "kafka_away") for _ in range(3)])
    client = ThumbloopClient(
        BASE_URL, transport=httpx.MockTransport(gateway), feedback_retry_s=0.0, sleep=gateway.slept.append
    )
    with pytest.raises(Unavailable):
        client.thumb("token", up=True)
    assert len(gateway.requests) == 1


def test_nobody_sleeps_longer_than_the_time_that_is_left(connect: Callable[[Gateway], Any]) -> None:
    """A proxy's advice may lie far past `feedback_retry_s`: the error says so at once."""
    gateway = Gateway(error(503, "maintenance", retry_after="3600"))
    with pytest.raises(Unavailable) as info:
        connect(gateway).thumb("token", up=True)
    assert (gateway.slept, info.value.retry_after) == ([], 3600.0)


@pytest.mark.parametrize("advice", ["-5", "nan", "inf", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_advice_that_is_no_time_to_wait_is_none(connect: Callable[[Gateway], Any], advice: str) -> None:
    gateway = Gateway(error(503, "maintenance", retry_after=advice), accepted())
    assert connect(gateway).thumb("token", up=True).state == "accepted"
    assert len(gateway.slept) == 1 and 0 < gateway.slept[0] <= 5.2


def test_the_state_is_asked_with_the_token(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway(error(503, "learner_unavailable"), httpx.Response(200, json=FATE))
    fate = connect(gateway).feedback_state("f-1", "token")
    assert (fate.state, fate.trained_into, fate.reward_model_versions) == ("joined", ("p-2",), ("rm-1",))
    assert gateway.requests[1].headers["authorization"] == "Feedback token"
    assert gateway.requests[1].url.path == "/v1/feedback/f-1"


def sse(*chunks: dict[str, Any] | str) -> httpx.Response:
    lines = "".join(f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks)
    return httpx.Response(200, text=": hello\n\n" + lines, headers={"content-type": "text/event-stream"})


def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def streamed(*ends: dict[str, Any] | str) -> Sequence[dict[str, Any] | str]:
    return [
        chunk(0, {"role": "assistant", "content": ""}, thumbloop=details(0)),
        chunk(1, {"role": "assistant", "content": ""}, thumbloop=details(1)),
        chunk(0, {"content": "Hel"}),
        chunk(1, {"content": "Yo"}),
        chunk(0, {"content": "lo"}),
        *ends,
    ]


def test_a_stream_gives_the_token_first_and_the_spans_last(connect: Callable[[Gateway], Any]) -> None:
    gateway = Gateway(
        sse(
            *streamed(
                chunk(1, {}, "length", thumbloop={"rollout_id": "r-1", "spans": SPANS[:1]}),
                chunk(0, {}, "stop", thumbloop={"rollout_id": "r-0", "spans": SPANS}),
                {"object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 3}},
                "[DONE]",
            )
        )
    )
    parts = list(connect(gateway).stream("Hi", n=2))
    assert parts[0].feedback_token == "token-0"
    assert isinstance(parts[-1], AnswerFinished)
    first, second = gather(parts)
    assert (first.text, first.finish_reason, len(first.spans)) == ("Hello", "stop", 2)
    assert (second.text, second.finish_reason, second.feedback_token) == ("Yo", "length", "token-1")
    assert gateway.body()["stream"] is True


def test_a_stream_that_is_cut_says_so_after_its_parts(connect: Callable[[Gateway], Any]) -> None:
    parts = []
    with pytest.raises(Unavailable, match="cut"):
        for part in connect(Gateway(sse(*streamed()))).stream("Hi"):
            parts.append(part)
    assert [part.text for part in parts if isinstance(part, AnswerText)] == ["Hel", "Yo", "lo"]


def test_an_error_inside_a_stream_is_typed(connect: Callable[[Gateway], Any]) -> None:
    failed = {"error": {"message": "Full.", "type": "rate_limit_error", "param": None, "code": "busy"}}
    with pytest.raises(Busy, match="Full"):
        list(connect(Gateway(sse(*streamed(failed)))).stream("Hi"))


def test_a_refused_stream_is_an_error_with_its_body(connect: Callable[[Gateway], Any]) -> None:
    with pytest.raises(InvalidInput, match="Mend it so"):
        list(connect(Gateway(error(400, "bad"))).stream("Hi"))


@pytest.mark.parametrize("url", ["", "gateway:8080", "ftp://host", "http://"])
def test_what_is_no_gateway_is_told_at_once(url: str) -> None:
    with pytest.raises(InvalidInput, match="http://127"):
        ThumbloopClient(url)
