"""The topic pages say what is so: their messages exist and their examples are events that the converters read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format, symbol_database

from services.shared.contracts import topics
from services.shared.contracts.controls import control_to_proto, decode_control
from services.shared.contracts.feedback import decode_feedback, feedback_to_proto
from services.shared.contracts.policies import announcement_to_proto, decode_announcement
from services.shared.contracts.rollouts import decode_rollout, rollout_to_proto
from services.shared.contracts.scores import decode_score, score_to_proto
from services.shared.domain.errors import Misconfigured
from services.shared.settings.model import BusSettings

CONVERTERS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], Any]]] = {
    topics.ROLLOUTS: (decode_rollout, rollout_to_proto),
    topics.FEEDBACK: (decode_feedback, feedback_to_proto),
    topics.SCORES: (decode_score, score_to_proto),
    topics.POLICIES: (decode_announcement, announcement_to_proto),
    topics.CONTROLS: (decode_control, control_to_proto),
}
SEVEN_DAYS_MS = 7 * 86_400_000


def test_every_topic_has_a_page_and_a_converter() -> None:
    assert set(topics.load_topic_pages()) == set(CONVERTERS)


@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_the_example_of_a_page_is_an_event(name: str) -> None:
    page = topics.load_topic_pages()[name]
    decode, to_proto = CONVERTERS[name]
    message = symbol_database.Default().GetSymbol(page.message)()
    json_format.Parse(page.example, message)
    fact = decode(message.SerializeToString())
    assert json_format.MessageToDict(to_proto(fact)) == json_format.MessageToDict(message)


def test_events_about_people_leave_the_log_after_seven_days_and_announcements_never() -> None:
    pages = topics.load_topic_pages()
    for name in (topics.ROLLOUTS, topics.FEEDBACK, topics.SCORES):
        assert (pages[name].partitions, pages[name].retention_ms) == (4, SEVEN_DAYS_MS)
        assert pages[name].key == "rollout id"
    assert pages[topics.POLICIES].retention_ms == topics.KEPT_FOR_EVER


def test_topics_take_the_largest_event_that_settings_allow_by_default() -> None:
    for page in topics.load_topic_pages().values():
        assert page.max_message_bytes > BusSettings().max_event_bytes
        assert page.dead_letter
    assert topics.dead_letter_topic(topics.ROLLOUTS) == "rollouts-dlq"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"partitions": None}, "wrong type"),
        ({"partitions": 0}, "at least 1"),
        ({"retention_ms": -5}, "retention_ms"),
        ({"name": "another"}, "name"),
        ({"example": "{"}, "wrong type"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_page_that_does_not_read_is_told(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    content: dict[str, Any] = {
        "name": "scores",
        "description": "d",
        "key": "k",
        "message": "m",
        "producers": [],
        "consumers": [],
        "partitions": 1,
        "retention_ms": 1000,
        "max_message_bytes": 2048,
        "dead_letter": False,
        "example": "{}",
    }
    (tmp_path / "scores.yaml").write_text(yaml.safe_dump(content))
    assert topics.read_topic_pages(tmp_path)["scores"].partitions == 1

    (tmp_path / "scores.yaml").write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(Misconfigured, match=word):
        topics.read_topic_pages(tmp_path)
