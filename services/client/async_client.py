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


class AsyncThumbloopClient:
    """See `ThumbloopClient`. Belongs to one event loop; close it, or use it in an `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        feedback_retry_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """See `ThumbloopClient`."""
        self._http = httpx.AsyncClient(transport=transport, **http_options(base_url, timeout_s, api_key))
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

    async def thumb(self, token: str, *, up: bool, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """Good or bad. Returns when that is durable; until then it is sent again under one id.

        A later thumb on the same answer replaces this one, `retract` takes it back.
        """
        return await self._say(wire.statement_body(token, "thumb", options, value="up" if up else "down"))

    async def rate(self, token: str, stars: int, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """One (worst) to five (best) stars; otherwise as `thumb`."""
        return await self._say(wire.statement_body(token, "rating", options, value=stars))

    async def compare(
        self, chosen_token: str, rejected_token: str, **options: Unpack[wire.StatementOptions]
    ) -> FeedbackReceipt:
        """The one answer is better than the other; otherwise as `thumb`.

        Both must answer the same messages for the same user: take them from `chat_many`, or from two chats with one
        `user`.
        """
        return await self._say(wire.comparison_body(chosen_token, rejected_token, options))

    async def edit(self, token: str, text: str, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """The answer as it should have been, the whole of it; otherwise as `thumb`."""
        return await self._say(wire.statement_body(token, "edit", options, text=text))

    async def comment(self, token: str, text: str, **options: Unpack[wire.StatementOptions]) -> FeedbackReceipt:
        """A remark for people to read; otherwise as `thumb`."""
        return await self._say(wire.statement_body(token, "comment", options, text=text))

    async def retract(
        self, token: str, kind: str = "thumb", **options: Unpack[wire.StatementOptions]
    ) -> FeedbackReceipt:
        """Takes back what was said of an answer: its "thumb", "rating", "comparison", "edit" or "comment".

        Of a comparison, `token` is the chosen answer's. What the model learned before is not undone; later training
        goes without it.
        """
        return await self._say(wire.statement_body(token, kind, options, retracted=True))

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

    async def _say(self, body: dict[str, Any]) -> FeedbackReceipt:
        return wire.read_receipt(await self._repeated("POST", wire.FEEDBACK_PATH, json=body))

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
