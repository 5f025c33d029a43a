"""The client for asyncio: the methods of `ThumbloopClient`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self, Unpack

import httpx
from tenacity import AsyncRetrying

from services.client import wire
from services.client.answers import Answer, AnswerPart, FeedbackFate, FeedbackReceipt
from services.client.retries import PASSING, ServerAdvice, within
from services.client.transport import http_options, translated
from services.shared.ids import new_id


class AsyncThumbloopClient:
    """See `ThumbloopClient`. Belongs to one event loop; close it, or use it in an `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 120.0,
        feedback_retry_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """See `ThumbloopClient`."""
        self._http = httpx.AsyncClient(transport=transport, **http_options(base_url, timeout_s))
        self._feedback_retry_s = feedback_retry_s
        self._sleep = sleep

    async def chat(self, messages: str | Sequence[wire.Message], **options: Unpack[wire.ChatOptions]) -> Answer:
        """One answer. Never sent twice: a second draw would be another answer."""
        return (await self.chat_many(messages, n=1, **options))[0]

    async def chat_many(
        self, messages: str | Sequence[wire.Message], *, n: int, **options: Unpack[wire.ChatOptions]
    ) -> tuple[Answer, ...]:
        """`n` answers to the same messages, each with a token of its own."""
        body = wire.chat_body(messages, options, n=n, stream=False)
        return wire.read_answers(await self._request("POST", wire.CHAT_PATH, json=body))

    async def stream(
        self, messages: str | Sequence[wire.Message], *, n: int = 1, **options: Unpack[wire.ChatOptions]
    ) -> AsyncIterator[AnswerPart]:
        """Parts as they come; `answers.gather` makes answers of them. Closing the iterator ends the answer."""
        body = wire.chat_body(messages, options, n=n, stream=True)
        reader = wire.StreamReader()
        with translated():
            async with self._http.stream("POST", wire.CHAT_PATH, json=body) as response:
                if response.status_code >= 400:
                    raise wire.response_error(response.status_code, response.headers, await response.aread())
                async for line in response.aiter_lines():
                    for part in reader.parts(line):
                        yield part
        reader.finish()

    async def thumb(
        self, token: str, *, up: bool, feedback_id: str | None = None, revision: int | None = None
    ) -> FeedbackReceipt:
        """Rates an answer; returns when that is durable. Sent again under one id until it is acknowledged."""
        body = wire.thumb_body(token, up=up, feedback_id=feedback_id or new_id(), revision=revision)
        return wire.read_receipt(await self._repeated("POST", wire.FEEDBACK_PATH, json=body))

    async def feedback_state(self, feedback_id: str, token: str) -> FeedbackFate:
        """Where a feedback is. Raises NotFound, PermissionDenied (another's)."""
        path, headers = f"{wire.FEEDBACK_PATH}/{feedback_id}", wire.feedback_headers(token)
        return wire.read_fate(await self._repeated("GET", path, headers=headers))

    async def close(self) -> None:
        """Twice is once."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _repeated(self, method: str, path: str, **request: Any) -> Any:
        attempts = AsyncRetrying(
            retry=PASSING,
            wait=ServerAdvice(),
            stop=within(self._feedback_retry_s),
            sleep=self._sleep,
            reraise=True,
        )
        return await attempts(self._request, method, path, **request)

    async def _request(self, method: str, path: str, **request: Any) -> Any:
        with translated():
            response = await self._http.request(method, path, **request)
        if response.status_code >= 400:
            raise wire.response_error(response.status_code, response.headers, response.content)
        return response.json()
