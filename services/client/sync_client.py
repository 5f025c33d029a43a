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
from services.shared.ids import new_id


class ThumbloopClient:
    """Chats with a gateway and rates its answers. Raises the errors of `services.shared.domain.errors`.

    Safe from any thread; close it, or use it in a `with`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 120.0,
        feedback_retry_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`timeout_s` bounds each wait for the gateway; a thumb is sent again for `feedback_retry_s` at most."""
        self._http = httpx.Client(transport=transport, **http_options(base_url, timeout_s))
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

    def thumb(
        self, token: str, *, up: bool, feedback_id: str | None = None, revision: int | None = None
    ) -> FeedbackReceipt:
        """Rates an answer; returns when that is durable. Sent again under one id until it is acknowledged."""
        body = wire.thumb_body(token, up=up, feedback_id=feedback_id or new_id(), revision=revision)
        return wire.read_receipt(self._repeated("POST", wire.FEEDBACK_PATH, json=body))

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
