"""Answers in the shapes of OpenAI's API, plus each choice's `thumbloop` object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.gateway.chat.choice import ChoiceDelta, ChoiceEvent, ChoiceFinished, ChoiceStarted
from services.gateway.chat.service import ChatService, Choice, Exchange
from services.shared.domain.rollout import VersionSpan

Json = dict[str, Any]


class ChatRenderer:
    """Renders one exchange. `fingerprint` is the version of the first choice that started."""

    def __init__(self, service: ChatService, exchange: Exchange) -> None:
        self._service = service
        self._exchange = exchange
        self._fingerprint: str | None = None
        self._finished: dict[int, ChoiceFinished] = {}

    def plain(self, choices: Iterable[Choice]) -> Json:
        """A `chat.completion` of complete choices."""
        rendered = [self._plain_choice(choice) for choice in choices]
        return {
            **self._head("chat.completion"),
            "choices": rendered,
            "usage": _usage(self._finished.values()),
        }

    def chunk(self, event: ChoiceEvent) -> Json:
        """A `chat.completion.chunk` for one event of a stream."""
        if isinstance(event, ChoiceStarted):
            self._fingerprint = self._fingerprint or event.policy_version
            choice = _delta(event.index, {"role": "assistant", "content": "", "refusal": None})
            choice["thumbloop"] = self._ids(event.rollout_id, event.policy_version)
        elif isinstance(event, ChoiceDelta):
            choice = _delta(event.index, {"content": event.text})
        else:
            self._finished[event.index] = event
            choice = _delta(event.index, {}, str(event.finish_reason))
            choice["thumbloop"] = {"rollout_id": event.rollout_id, "spans": _spans(event.spans)}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self._exchange.request.include_usage:
            chunk["usage"] = None
        return chunk

    def usage_chunk(self) -> Json:
        """The chunk after the last, for clients that asked for token counts."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": _usage(self._finished.values()),
        }

    def _head(self, kind: str) -> Json:
        return {
            "id": self._exchange.completion_id,
            "object": kind,
            "created": self._exchange.created,
            "model": self._exchange.request.model,
            "system_fingerprint": self._fingerprint,
        }

    def _plain_choice(self, choice: Choice) -> Json:
        finished = choice.finished
        assert finished is not None  # the service returns complete choices alone
        self._finished[choice.index] = finished
        version = finished.spans[0].policy_version if finished.spans else choice.policy_version
        self._fingerprint = self._fingerprint or version
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": "".join(choice.texts), "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": str(finished.finish_reason),
            "thumbloop": {**self._ids(choice.rollout_id, version), "spans": _spans(finished.spans)},
        }

    def _ids(self, rollout_id: str, policy_version: str) -> Json:
        identity = self._exchange.identity
        return {
            "rollout_id": rollout_id,
            "policy_version": policy_version,
            "feedback_token": self._service.token(self._exchange, rollout_id),
            "conversation_id": identity.conversation_id,
            "prompt_id": identity.prompt_id,
            "kinds": [str(kind) for kind in self._service.kinds(self._exchange)],
        }


def _delta(index: int, delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _spans(spans: Iterable[VersionSpan]) -> list[Json]:
    return [
        {
            "policy_version": span.policy_version,
            "begin": span.begin,
            "end": span.end,
            "kv_history": str(span.kv_history),
        }
        for span in spans
    ]


def _usage(finished: Iterable[ChoiceFinished]) -> Json:
    """Token counts; the prompt, which the choices share, counts once."""
    ends = list(finished)
    prompt = max((end.prompt_tokens for end in ends), default=0)
    completion = sum(end.response_tokens for end in ends)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
