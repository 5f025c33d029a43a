"""`thumbloop dead-letters replay` never routes so much back to ingest that ingest stops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from services.cli import dead_letters, replaying
from services.cli.dead_letters import Choice, find
from services.cli.main import app
from services.cli.replaying import fitting, split
from services.learner.ingest.dead_letters import WINDOW, DeadLetters
from services.learner.ingest.positions import Position
from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.topics import CONTROLS, FEEDBACK, SCORES, dead_letter_topic, load_topic_pages
from services.shared.domain.errors import Corrupt
from tests.support.facts import DEPLOYMENT, make_thumb

KEY = "one partition"
GARBLED = b"\xff"
SHARE = 0.1
ENVIRONMENT = {"COLUMNS": "300", "THUMBLOOP_DEPLOYMENT__NAME": DEPLOYMENT}


def new_bus() -> MemoryBus:
    bus = MemoryBus()
    bus.ensure_topics(load_topic_pages().values())
    return bus


class Ingest:
    """Reads the partition of `KEY` in batches, counts as the learner does, and buries what is garbled."""

    def __init__(self, bus: MemoryBus, topic: str = FEEDBACK) -> None:
        self._bus = bus
        self._topic = topic
        place = bus.append(self._event(b"first")).place
        self._letters = DeadLetters(bus.publisher("ingest"), max_share=SHARE)
        self._position = Position(place=place, next=0, epoch=1, last_event_id="", cluster_id="")

    def _event(self, value: bytes) -> OutgoingEvent:
        return OutgoingEvent(topic=self._topic, key=KEY, value=value)

    def take(self, values: Sequence[bytes]) -> None:
        """Raises Corrupt, and counts nothing then, when it would stop."""
        records = [self._bus.append(self._event(value)) for value in values]
        dead = [record for record in records if record.value == GARBLED]
        read, unreadable = self._letters.recount(self._position, read=len(records), dead=len(dead))
        self._position = replace(self._position, recent_read=read, recent_dead=unreadable)
        for record in dead:
            self._bury(record)

    def _bury(self, record: Record) -> None:
        headers = {"dlq-topic": self._topic, "dlq-partition": str(record.place.partition)}
        headers |= {"dlq-offset": str(record.offset), "dlq-reason": "NOT_PROTOBUF"}
        event = OutgoingEvent(
            topic=dead_letter_topic(self._topic),
            key=KEY,
            value=record.value,
            headers={name: text.encode() for name, text in headers.items()},
        )
        self._bus.append(event)


def forced(bus: MemoryBus) -> list[bytes]:
    """What `replay --all --force` would send of what cannot be read."""
    _, left_out = split(find(bus, Choice()), deployment=DEPLOYMENT)
    fits, _ = fitting(bus, left_out, max_share=SHARE)
    return [one.letter.record.value for one in fits]


def test_the_window_is_ingests() -> None:
    assert replaying.WINDOW == WINDOW


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=14), st.integers(1, 3))
def test_ingest_bears_what_is_forced(history: list[tuple[int, int]], times: int) -> None:
    bus = new_bus()
    ingest = Ingest(bus)
    for good, garbled in history:
        try:
            ingest.take([b"good"] * good + [GARBLED] * garbled)
        except Corrupt:
            return  # it stands already
    for _ in range(times):
        ingest.take(forced(bus))


def test_as_much_is_forced_as_there_is_room_for() -> None:
    bus = new_bus()
    ingest = Ingest(bus)
    ingest.take([GARBLED] * 60)
    assert len(forced(bus)) == 40
    ingest.take([b"good"] * 1_900)
    assert len(forced(bus)) == 40, "ingest still counts them"
    ingest.take([b"good"] * 10_000)
    assert len(forced(bus)) == 60, "it no longer does"


def test_what_has_no_cap_is_forced_whole() -> None:
    bus = new_bus()
    Ingest(bus, CONTROLS).take([GARBLED] * 60)
    for _ in range(300):
        bus.append(OutgoingEvent(topic=dead_letter_topic(CONTROLS), key=KEY, value=GARBLED))
    assert len(forced(bus)) == 360


def bury(bus: MemoryBus, values: Iterable[bytes], topic: str = FEEDBACK) -> None:
    for value in values:
        headers = {"own": b"header", "dlq-reason": b"BAD_TIME", "dlq-topic": topic.encode()}
        bus.append(OutgoingEvent(topic=dead_letter_topic(topic), key=KEY, value=value, headers=headers))


def published(bus: MemoryBus, topic: str = FEEDBACK) -> list[bytes]:
    return [record.value for place in bus.places(topic) for record in bus.read(place, 0, 1_000)]


def replay(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.setattr(dead_letters, "open_bus", lambda settings: bus)
    done = CliRunner().invoke(app, ["dead-letters", "replay", *words], env=ENVIRONMENT)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize("words", [("--all",), ("--reason", "BAD_TIME"), ("feedback-dlq/2@0", "feedback-dlq/2@1")])
def test_what_still_cannot_be_read_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    bus = new_bus()
    mended = encode_feedback(make_thumb("mended"))
    bury(bus, [mended, GARBLED])
    words = tuple(word.replace("feedback-dlq/2", letter_place(bus)) for word in words)
    done = replay(bus, monkeypatch, *words)
    assert published(bus) == [mended]
    assert "1 replayed" in done.output and "1 left out" in done.output and "--force" in done.output
    assert f"{letter_place(bus)}@1 (NOT_PROTOBUF)" in done.output


def letter_place(bus: MemoryBus) -> str:
    return find(bus, Choice())[0].id.partition("@")[0]


def test_another_deployments_events_are_left_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = new_bus()
    foreign = make_thumb("foreign")
    bury(bus, [encode_feedback(replace(foreign, meta=replace(foreign.meta, deployment="other")))])
    done = replay(bus, monkeypatch, "--all")
    assert published(bus) == [] and "OTHER_DEPLOYMENT" in done.output and "'other'" in done.output


def test_forcing_replays_what_fits_and_names_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = new_bus()
    bury(bus, [GARBLED] * 120)
    bury(bus, [GARBLED], topic=SCORES)
    done = replay(bus, monkeypatch, "--all", "--force")
    assert len(published(bus)) == 100 and len(published(bus, SCORES)) == 1
    assert "101 replayed" in done.output and "20 left out" in done.output and "would stop ingest" in done.output
