"""Bodies as long as their contract allows, however their characters are spelled.

Plan: at a gateway that takes short conversations and at one with the usual settings, edits of the greatest length,
their characters escaped as clients do whose JSON is ASCII alone, and one that is longer than any text may be.
Pass: the longest edit is taken; what no text explains is refused with 413, in words that fit whatever was sent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.shared.contracts.feedback import MAX_EDIT_CHARS
from services.shared.domain.feedback import Edit
from tests.support.gateway import running_gateway

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("settings", [{}, {"max_prompt_chars": 100}], ids=["usual", "short conversations"])
@pytest.mark.parametrize("character", ["ж", "🌱"], ids=["6 bytes each", "12 bytes each"])
async def test_the_longest_edit_is_taken(tmp_path: Path, settings: dict[str, Any], character: str) -> None:
    text = character * MAX_EDIT_CHARS
    async with running_gateway(tmp_path, **settings) as gateway:
        token = (await gateway.choice("Hi"))["feedback_token"]
        body = json.dumps({"token": token, "kind": "edit", "text": text}, ensure_ascii=True)
        answer = await gateway.http.post("/v1/feedback", content=body, headers=JSON)
        assert answer.status_code == 200, answer.text
        assert [feedback.body for feedback in gateway.bus.feedback] == [Edit(text=text)]


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/chat/completions"])
async def test_a_body_past_all_bounds_is_told_so(tmp_path: Path, path: str) -> None:
    async with running_gateway(tmp_path, max_prompt_chars=100) as gateway:
        answer = await gateway.http.post(path, content=b" " * (13 * MAX_EDIT_CHARS), headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert "conversation" not in answer.json()["error"]["message"]
