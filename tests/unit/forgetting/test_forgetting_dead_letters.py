"""Dead letters: a person's are gone, others' stay as they were; listing, showing and replaying what is there."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli import dead_letters
from services.cli.dead_letters import Choice, decoded, described, find, hex_lines, replay
from services.cli.main import app
from services.learner.forgetting.dead_letters import DeadLetterEraser
from services.learner.forgetting.keeping_out import without_forgotten_records
from services.learner.ingest.decoding import read
from services.shared.bus.dead_letters import DeadLetter, dead_letter_topics, parse_id, read_dead_letters
from services.shared.bus.interface import OutgoingEvent, Place, Record
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, dead_letter_topic, load_topic_pages
from services.shared.domain.errors import Busy, InvalidInput, NotFound, NotSupported
from tests.support.facts import DEPLOYMENT, make_rollout, make_thumb
from tests.support.forgetting_world import ALICE, ALICE_OLD, BOB, HERS, HIS, NEVER, forget
from tests.support.learner_store import LearnerStore, ManualClock, open_test_database

DLQ = Place(dead_letter_topic(FEEDBACK), 0)


@pytest.fixture
def bus() -> MemoryBus:
    bus = MemoryBus()
    bus.ensure_topics(load_topic_pages().values())
    return bus


def bury(bus: MemoryBus, value: bytes, *, topic: str = FEEDBACK, key: str = "k", reason: str = "NOT_PROTOBUF") -> None:
    headers = {
        "own": b"header",
        "dlq-reason": reason.encode(),
        "dlq-message": b"why",
        "dlq-topic": topic.encode(),
        "dlq-partition": b"3",
        "dlq-offset": b"17",
    }
    bus.append(OutgoingEvent(topic=dead_letter_topic(topic), key=key, value=value, headers=headers))


def erase(bus: MemoryBus, *, rollouts: tuple[str, ...] = HERS[:1]) -> int:
    return DeadLetterEraser(bus, bus.publisher("test")).erase(rater_ids=[ALICE], rollout_ids=rollouts)


def there(bus: MemoryBus) -> list[bytes]:
    return [letter.record.value for letter in read_dead_letters(bus, dead_letter_topics())]


def test_theirs_go_and_others_stay_with_their_headers(bus: MemoryBus) -> None:
    readable = encode_feedback(make_thumb("f", rollout=HIS[0], rater=BOB))
    bury(bus, readable, reason="OTHER_DEPLOYMENT")
    bury(bus, b"\xff\x0a\x20" + ALICE.encode()[:32] + b":cut")
    bury(bus, b"\xffother")
    bury(bus, encode_feedback(make_thumb("f", rollout=HERS[0], rater="x")), reason="OTHER_DEPLOYMENT")
    bury(bus, b"\xfflast")
    before = {letter.record.value: dict(letter.record.headers) for letter in read_dead_letters(bus, [DLQ.topic])}
    assert erase(bus) == 2
    left = list(read_dead_letters(bus, [DLQ.topic]))
    assert sorted(letter.record.value for letter in left) == sorted([readable, b"\xffother", b"\xfflast"])
    assert all(letter.record.headers == before[letter.record.value] for letter in left)
    assert bus.logs[DLQ].first == 4  # what lay behind the last of hers was not moved
    assert erase(bus) == 0
    assert bus.logs[DLQ].first == 4


def test_a_rollout_that_never_reached_the_store_is_known_by_its_rater(bus: MemoryBus) -> None:
    bury(bus, b"\xff" + ALICE.encode(), topic=ROLLOUTS, key=NEVER)
    bury(bus, b"\xff$" + NEVER.encode() + b"B", topic="scores", key="x")
    bury(bus, b"\xff$" + HIS[0].encode() + b"B", topic="scores", key=HIS[0])
    assert erase(bus) == 2
    assert there(bus) == [b"\xff$" + HIS[0].encode() + b"B"]


def test_a_broker_that_cannot_delete_says_so_before_anything_moves(bus: MemoryBus) -> None:
    bury(bus, b"\xffother")
    bury(bus, b"\xff" + ALICE.encode())

    def refuse(before: dict[Place, int]) -> None:
        raise NotSupported("this broker keeps everything")

    bus.delete_records = refuse  # type: ignore[method-assign,assignment]  # as a broker without DeleteRecords
    with pytest.raises(NotSupported):
        erase(bus)
    assert len(there(bus)) == 2


def test_what_is_read_again_does_not_become_a_dead_letter_again(tmp_path: Path, bus: MemoryBus) -> None:
    database = open_test_database(tmp_path)
    learner = LearnerStore(database, ManualClock(1000))
    forget(learner)
    for value in (b"\xff" + ALICE_OLD.encode(), b"\xff" + BOB.encode()):
        bus.append(OutgoingEvent(topic=FEEDBACK, key="k", value=value))
    items = [read(record, deployment=DEPLOYMENT) for place in bus.places(FEEDBACK) for record in bus.read(place, 0, 10)]
    assert len(items) == 2
    kept = without_forgotten_records(database, items)
    assert [item.record.value for item in kept] == [b"\xff" + BOB.encode()]
    database.close()


def test_finding_by_topic_reason_and_id(bus: MemoryBus) -> None:
    bury(bus, b"\xff1")
    bury(bus, b"\xff2", reason="BAD_TIME")
    bury(bus, b"\xff3", topic=ROLLOUTS)
    assert {letter.record.value for letter in find(bus, Choice())} == {b"\xff1", b"\xff2", b"\xff3"}
    assert [letter.id for letter in find(bus, Choice(topic=FEEDBACK))] == ["feedback-dlq/0@0", "feedback-dlq/0@1"]
    assert [letter.record.value for letter in find(bus, Choice(reason="BAD_TIME"))] == [b"\xff2"]
    assert [letter.record.value for letter in find(bus, Choice(ids=("rollouts-dlq/0@0",)))] == [b"\xff3"]
    with pytest.raises(NotFound):
        find(bus, Choice(ids=("feedback-dlq/0@9",)))
    for wrong in ("feedback/0@1", "feedback-dlq", "feedback-dlq/x@1", "../etc/0@1"):
        with pytest.raises(InvalidInput):
            parse_id(wrong)
    with pytest.raises(InvalidInput):
        find(bus, Choice(topic="nonsense"))


def test_replaying_gives_the_original_event(bus: MemoryBus) -> None:
    bury(bus, b"\xff1", key="the key")
    letters = find(bus, Choice())
    for _ in range(2):
        replay(bus, letters)
    events = [record for place in bus.places(FEEDBACK) for record in bus.read(place, 0, 10)]
    assert [(event.key, event.value, event.headers) for event in events] == [
        ("the key", b"\xff1", {"own": b"header"})
    ] * 2


def test_replaying_more_than_may_be_in_flight(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event is acknowledged before the producer is full."""
    for number in range(25):
        bury(bus, b"\xff%d" % number)
    inner = bus.publisher("inner")
    waiting: list[tuple[OutgoingEvent, Future[Record]]] = []

    class Bounded:
        """Takes ten at a time, and acknowledges when somebody waits."""

        def send(self, event: OutgoingEvent) -> Future[Record]:
            future: Future[Record] = Awaited()
            if len(waiting) == 10:
                future.set_exception(Busy("too much in flight"))
            else:
                waiting.append((event, future))
            return future

        def close(self, timeout_s: float) -> None:
            inner.close(timeout_s)

    class Awaited(Future[Record]):
        def result(self, timeout: float | None = None) -> Record:
            for event, future in waiting:
                future.set_result(inner.send(event).result(timeout))
            waiting.clear()
            return super().result(timeout)

    monkeypatch.setattr(bus, "publisher", lambda client_id: Bounded())
    replay(bus, find(bus, Choice()), window=10)
    events = [record.value for place in bus.places(FEEDBACK) for record in bus.read(place, 0, 100)]
    assert sorted(events) == sorted(b"\xff%d" % number for number in range(25))


def test_the_window_is_no_wider_than_the_settings_allow(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int] = []
    monkeypatch.setattr(dead_letters, "open_bus", lambda settings: bus)
    monkeypatch.setattr(dead_letters, "replay", lambda bus, letters, *, window: windows.append(window))
    for most in ("3", "100000"):
        done = CliRunner().invoke(app, ["dead-letters", "replay", "--all"], env={"THUMBLOOP_BUS__MAX_IN_FLIGHT": most})
        assert done.exit_code == 0, done.output
    assert windows == [3, dead_letters.WINDOW]


def test_what_others_wrote_is_shown_as_it_is(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "open_bus", lambda settings: bus)
    foreign = "[/x] [red]\x1b[2J"
    headers = {"dlq-reason": foreign.encode(), "dlq-message": foreign.encode(), "own[/x]": foreign.encode()}
    bus.append(OutgoingEvent(topic=DLQ.topic, key=foreign, value=foreign.encode(), headers=headers))
    for words in (["list"], ["show", "feedback-dlq/0@0"], ["replay", "--all", "--force"]):
        done = CliRunner().invoke(app, ["dead-letters", *words], env={"COLUMNS": "300"})
        assert done.exit_code == 0, done.output
        assert r"[/x] [red]\x1b[2J" in done.output and "\x1b" not in done.output


def test_showing_decodes_as_far_as_it_reads(bus: MemoryBus) -> None:
    rollout = make_rollout(HERS[0], text="Water it when dry.")
    bury(bus, encode_rollout(rollout), topic=ROLLOUTS, reason="OTHER_DEPLOYMENT")
    bury(bus, b"\xff\xfe", topic=ROLLOUTS)
    readable, garbled = (described(letter) for letter in find(bus, Choice()))
    assert "Water it when dry." in readable["as far as it reads"]
    assert (readable["origin"], readable["reason"]) == ("rollouts/3@17", "OTHER_DEPLOYMENT")
    assert "no thumbloop.generator.v1.Rollout" in garbled["as far as it reads"]
    assert "fffe" in garbled["bytes (2)"]
    assert decoded("elsewhere", b"").startswith("(nothing is known")
    assert hex_lines(b"A" * 33).splitlines()[1].startswith("000020  41")


def test_a_letter_without_notes_is_of_its_topic(bus: MemoryBus) -> None:
    record = bus.append(OutgoingEvent(topic=DLQ.topic, key="k", value=b"x"))
    letter = DeadLetter(record=record)
    assert (letter.topic, letter.origin, letter.reason) == (FEEDBACK, "", "")


def test_the_commands(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "open_bus", lambda settings: bus)
    bury(bus, b"\xff1", key="the key")
    bury(bus, b"\xff2", reason="BAD_TIME")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["dead-letters", *words], env={"COLUMNS": "200"})

    shown = run("list")
    assert shown.exit_code == 0 and "feedback-dlq/0@1" in shown.output and "BAD_TIME" in shown.output
    assert "feedback-dlq/0@1" not in run("list", "--reason", "NOT_PROTOBUF").output
    one = run("show", "feedback-dlq/0@0")
    assert one.exit_code == 0 and "the key" in one.output and "ff31" in one.output
    assert run("replay").exit_code == 1  # nothing named, nothing done
    assert [bus.logs[place].end for place in bus.places(FEEDBACK)] == [0] * len(bus.places(FEEDBACK))
    replayed = run("replay", "--reason", "BAD_TIME", "--force")
    assert replayed.exit_code == 0 and "1 replayed" in replayed.output
    assert run("replay", "feedback-dlq/0@0", "feedback-dlq/0@7").exit_code == 1
    assert "2 replayed" in run("replay", "--all", "--force").output
    assert sum(bus.logs[place].end for place in bus.places(FEEDBACK)) == 3
