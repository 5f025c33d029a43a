"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, Unpack

import httpx
from tenacity import Retrying

from services.client import wire
from services.client.answers import Answer, AnswerPart, FeedbackFate, FeedbackReceipt
from services.client.retries import PASSING, ServerAdvice, within
from services.client.transport import http_options, translated


class ThumbloopClient:
    """Chats with a gateway, says what its answers are worth, and asks where that went.

        with ThumbloopClient("http://127.0.0.1:8080") as client:
            best, other = client.chat_many("How do I keep a houseplant alive?", n=2, user="alice")
            client.thumb(best.feedback_token, up=True)
            client.rate(best.feedback_token, 4)
            client.compare(best.feedback_token, other.feedback_token)
            client.edit(other.feedback_token, "Water it when the soil is dry.")
            receipt = client.comment(best.feedback_token, "Friendly, and short.")
            client.retract(best.feedback_token, "rating")
            print(client.feedback_state(receipt.feedback_id, best.feedback_token).state)

    Each answer holds one statement of a kind: a later one replaces it, `retract` empties it. A statement returns when
    it is durable; until then it is sent again under one id for `feedback_retry_s`, which is safe.

    Raises the errors of `services.shared.domain.errors`: InvalidInput says what to mend, Unauthenticated a token that
    is altered or expired, PermissionDenied one that allows something else, Conflict a `feedback_id` that was used for
    another statement, Busy and Unavailable that the gateway's limits or its disks did not take it in time.

    Safe from any thread; close it, or use it in a `with`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        feedback_retry_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`api_key` with scope chat, where the gateway wants one (rating needs none).

        `timeout_s` bounds each wait for the gateway; feedback is sent again for `feedback_retry_s` at most.
        """
        self._http = httpx.Client(transport=transport, **http_options(base_url, timeout_s, api_key))
        self._feedback_retry_s = feedback_retry_s
        self._sleep = sleep

    def chat(self, messages: str | Sequence[wire.Message], **options: Unpack[wire.ChatOptions]) -> Answer:
        """One answer. Never sent twice: a second draw would be another answer."""
        return self.chat_many(messages, n=1, **options)[0]

    def chat_many(
        self, messages: str | Sequence[wire.Message], *, n: int, **options: Unpack[wire.ChatOptions]
    ) -> tuple[Answer, ...]:
        """`n` answers to the same messages, each with a token of its own."""
        body = wire.chat_body(messages, options, n=n, stream=False)
        return wire.read_answers(self._request("POST", wire.CHAT_PATH, json=body))

    def stream(
        self, messages: str | Sequence[wire.Message], *, n: int = 1, **options: Unpack[wire.ChatOptions]
    ) -> Iterator[AnswerPart]:
        """Parts as they come; `answers.gather` makes answers of them. Closing the iterator ends the answer."""
        body = wire.chat_body(messages, options, n=n, stream=True)
        reader = wire.StreamReader()
        with translated(), self._http.stream("POST", wire.CHAT_PATH, json=body) as response:
            if response.status_code >= 400:
                raise wire.response_error(response.status_code, response.headers, response.read())
            for line in response.iter_lines():
                yield from reader.parts(line)
        reader.finish()

    def thumb(self, token: str, *, up: bool, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """Good or bad. Returns when that is durable; until then it is sent again under one id.

        A later thumb on the same answer replaces this one, `retract` takes it back.
        """
        return self._say(wire.statement_body(token, "thumb", options, value="up" if up else "down"))

    def rate(self, token: str, stars: int, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """One (worst) to five (best) stars; otherwise as `thumb`."""
        return self._say(wire.statement_body(token, "rating", options, value=stars))

    def compare(
        self, chosen_token: str, rejected_token: str, **options: Unpack[wire.StatementOptions]
    ) -> FeedbackReceipt:
        """The one answer is better than the other; otherwise as `thumb`.

        Both must answer the same messages for the same user: take them from `chat_many`, or from two chats with one
        `user`.
        """
        return self._say(wire.comparison_body(chosen_token, rejected_token, options))

    def edit(self, token: str, text: str, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """The answer as it should have been, the whole of it; otherwise as `thumb`."""
        return self._say(wire.statement_body(token, "edit", options, text=text))

    def comment(self, token: str, text: str, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """A remark for people to read; otherwise as `thumb`."""
        return self._say(wire.statement_body(token, "comment", options, text=text))

    def retract(self, token: str, kind: str = "thumb", **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """Takes back what was said of an answer: its "thumb", "rating", "comparison", "edit" or "comment".

        Of a comparison, `token` is the chosen answer's. What the model learned before is not undone; later training
        goes without it.
        """
        return self._say(wire.statement_body(token, kind, options, retracted=True))

    def feedback_state(self, feedback_id: str, token: str) -> FeedbackFate:
        """Where a feedback is. Raises NotFound, PermissionDenied (another's)."""
        path, headers = f"{wire.FEEDBACK_PATH}/{feedback_id}", wire.feedback_headers(token)
        return wire.read_fate(self._repeated("GET", path, headers=headers))

    def close(self) -> None:
        """Twice is once."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, body: dict[str, Any]) -> FeedbackReceipt:
        return wire.read_receipt(self._repeated("POST", wire.FEEDBACK_PATH, json=body))

    def _repeated(self, method: str, path: str, **request: Any) -> Any:
        attempts = Retrying(
            retry=PASSING,
            wait=ServerAdvice(),
            stop=within(self._feedback_retry_s),
            sleep=self._sleep,
            reraise=True,
        )
        return attempts(self._request, method, path, **request)

    def _request(self, method: str, path: str, **request: Any) -> Any:
        with translated():
            response = self._http.request(method, path, **request)
        if response.status_code >= 400:
            raise wire.response_error(response.status_code, response.headers, response.content)
        return response.json()
