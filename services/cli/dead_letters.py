"""`thumbloop dead-letters`: shows what could not be read, and publishes it again once the reader was mended."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message
from rich.console import Console
from rich.table import Table
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.generator.v1 import rollout_pb2
from thumbloop.learner.v1 import control_pb2, policy_pb2
from thumbloop.reward.v1 import score_pb2

from services.cli.plain import plain
from services.cli.replaying import LeftOut, fitting, split
from services.shared.bus import open_bus
from services.shared.bus.dead_letters import DeadLetter, dead_letter_topics, parse_id, read_dead_letters
from services.shared.bus.interface import Bus
from services.shared.contracts.topics import (
    CONTROLS,
    DEAD_LETTER_SUFFIX,
    FEEDBACK,
    POLICIES,
    ROLLOUTS,
    SCORES,
    dead_letter_topic,
)
from services.shared.domain.errors import InvalidInput, NotFound, Unavailable
from services.shared.settings import load_settings

ACK_TIMEOUT_S = 30.0
WINDOW = 200
"""Events in flight at a time, where the settings allow so many."""
HEX_BYTES_A_LINE = 32
SHOWN_BYTES = 4096
MESSAGES: dict[str, Callable[[], Message]] = {
    ROLLOUTS: rollout_pb2.Rollout,
    FEEDBACK: feedback_pb2.Feedback,
    SCORES: score_pb2.Score,
    POLICIES: policy_pb2.PolicyAnnouncement,
    CONTROLS: control_pb2.Control,
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which dead letters are meant; all that is given must hold. Nothing given: all."""

    ids: tuple[str, ...] = ()
    topic: str = ""
    reason: str = ""

    def topics(self) -> list[str]:
        """Dead-letter topics to read. Raises InvalidInput for a topic that has none."""
        if self.ids:
            return sorted({parse_id(one)[0].topic for one in self.ids})
        if not self.topic:
            return dead_letter_topics()
        wanted = dead_letter_topic(self.topic.removesuffix(DEAD_LETTER_SUFFIX))
        if wanted not in dead_letter_topics():
            raise InvalidInput(f"--topic {self.topic!r} has no dead letters; these have: {', '.join(MESSAGES)}.")
        return [wanted]

    def holds(self, letter: DeadLetter) -> bool:
        """Whether it is meant."""
        return (not self.ids or letter.id in self.ids) and self.reason in ("", letter.reason)


def find(bus: Bus, choice: Choice) -> list[DeadLetter]:
    """In the order of their places. Raises NotFound for an id that is not there (any more)."""
    found = [letter for letter in read_dead_letters(bus, choice.topics()) if choice.holds(letter)]
    missing = set(choice.ids) - {letter.id for letter in found}
    if missing:
        raise NotFound(
            f"There is no dead letter {', '.join(sorted(missing))} (any more): retention, or a person who was"
            " forgotten, may have taken it. `thumbloop dead-letters list` shows what is there."
        )
    return found


def replay(bus: Bus, letters: Sequence[DeadLetter], *, window: int = WINDOW) -> None:
    """Publishes the events again where they had been: the same bytes, key and headers. Returns when Kafka has them.

    At most `window` are in flight at a time. Of a key that is not UTF-8 the readable characters are kept. Safe to
    repeat: whoever reads them knows them by their ids. Raises Unavailable; some may have been published then.
    """
    publisher = bus.publisher("dead-letters-replay")
    try:
        for begin in range(0, len(letters), window):
            for sent in [publisher.send(letter.as_it_was()) for letter in letters[begin : begin + window]]:
                try:
                    sent.result(timeout=ACK_TIMEOUT_S)
                except TimeoutError as error:
                    raise Unavailable("Kafka did not acknowledge; run the same again, that is safe.") from error
    finally:
        publisher.close(ACK_TIMEOUT_S)


def print_list(choice: Choice) -> None:
    """A table, a dead letter a row."""
    with _Opened() as bus:
        letters = find(bus, choice)
    table = Table(title=f"{len(letters)} dead letters")
    for column in ("id", "reason", "origin", "at", "key", "bytes", "why"):
        table.add_column(column, overflow="fold")
    for letter in letters:
        at = letter.record.timestamp.strftime("%Y-%m-%d %H:%M:%S")
        size = str(len(letter.record.value))
        cells = (letter.id, letter.reason, letter.origin, at, letter.record.key, size, letter.message)
        table.add_row(*map(plain, cells))
    Console().print(table)


def print_letter(dead_letter_id: str) -> None:
    """All that is known of one."""
    with _Opened() as bus:
        (letter,) = find(bus, Choice(ids=(dead_letter_id,)))
    console = Console()
    for name, value in described(letter).items():
        lines = "\n".join(map(plain, value.split("\n")))
        console.print(f"[bold]{name}[/]: {lines}", highlight=False, soft_wrap=True)


def described(letter: DeadLetter) -> dict[str, str]:
    """What a person wants to see, by name."""
    record = letter.record
    return {
        "id": letter.id,
        "reason": letter.reason,
        "why": letter.message,
        "origin": letter.origin or f"{letter.topic}, place not noted",
        "written": record.timestamp.isoformat(),
        "key": record.key,
        "headers": json.dumps({name: value.decode(errors="replace") for name, value in letter.own_headers.items()}),
        "as far as it reads": "\n" + decoded(letter.topic, record.value),
        f"bytes ({len(record.value)})": "\n" + hex_lines(record.value[:SHOWN_BYTES]),
    }


def decoded(topic: str, data: bytes) -> str:
    """The event as JSON as far as its bytes are that message; else why not."""
    if topic not in MESSAGES:
        return f"(nothing is known of topic {topic})"
    message: Any = MESSAGES[topic]()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        return f"(no {message.DESCRIPTOR.full_name}: {error})"
    return MessageToJson(message, indent=2)


def hex_lines(data: bytes) -> str:
    """Offset, hex, and the characters beside it."""
    lines = []
    for begin in range(0, len(data), HEX_BYTES_A_LINE):
        piece = data[begin : begin + HEX_BYTES_A_LINE]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{begin:06x}  {piece.hex(' ', 4):<{HEX_BYTES_A_LINE * 9 // 4}}  {shown}")
    return "\n".join(lines)


def print_replay(choice: Choice, *, everything: bool, force: bool = False) -> None:
    """Replays what was chosen and can be read now, and says so; with `force` also what cannot, as far as ingest bears
    it. Raises InvalidInput where nothing was chosen.
    """
    if not (choice.ids or choice.reason or everything):
        raise InvalidInput("Name ids, or --reason, or --all: nothing was replayed.")
    settings = load_settings()
    with _Opened() as bus:
        letters, left_out = split(find(bus, choice), deployment=settings.deployment.name)
        if force:
            forced, left_out = fitting(bus, left_out, max_share=settings.learner.dead_letter_max_share)
            letters += [one.letter for one in forced]
        replay(bus, letters, window=min(WINDOW, settings.bus.max_in_flight))
    console = Console()
    for letter in letters:
        line = f"{letter.id} ({letter.reason}) was published again on {letter.topic}"
        console.print(plain(line), highlight=False)
    console.print(
        f"{len(letters)} replayed. They stay in the dead-letter topic until its retention has passed. Replaying again"
        " is safe.",
        highlight=False,
    )
    if left_out:
        _print_left_out(console, left_out, forced=force)


def _print_left_out(console: Console, left_out: Sequence[LeftOut], *, forced: bool) -> None:
    if forced:
        why = (
            "more that cannot be read would stop ingest (learner.dead_letter_max_share). Replay them when it has read"
            " some thousand readable events."
        )
    else:
        why = (
            "they still cannot be read: each would come back as a new dead letter, and too many of them stop ingest."
            " Mend the reader, or say --force to replay as many as ingest bears."
        )
    console.print(f"{len(left_out)} left out, since {why}", highlight=False)
    for one in left_out:
        line = f"{one.letter.id} ({one.why.reason}): {one.why.message}"
        console.print(plain(line), highlight=False)


class _Opened:
    """The bus of the settings, closed afterwards."""

    def __enter__(self) -> Bus:
        self._bus = open_bus(load_settings().bus)
        return self._bus

    def __exit__(self, *_: object) -> None:
        self._bus.close()
