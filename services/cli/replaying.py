"""Which dead letters may be replayed: what still cannot be read comes back as a new one, and too many stop ingest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.learner.ingest import decoding
from services.shared.bus.dead_letters import DeadLetter, read_dead_letters
from services.shared.bus.interface import Bus, Place
from services.shared.contracts.controls import decode_control
from services.shared.contracts.policies import decode_announcement
from services.shared.contracts.topics import CONTROLS, POLICIES, dead_letter_topic
from services.shared.domain.errors import Unprocessable

WINDOW = 1000
"""Of `services.learner.ingest.dead_letters`, which needs a database's driver that this command does not."""
_ORIGIN = re.compile(r"/(\d{1,9})@(\d{1,18})$")
_UNCAPPED: dict[str, Callable[[bytes], Any]] = {POLICIES: decode_announcement, CONTROLS: decode_control}
"""Their readers skip what they cannot read, however much it is."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A dead letter that is not replayed, and why."""

    letter: DeadLetter
    why: Unprocessable


def split(letters: Iterable[DeadLetter], *, deployment: str) -> tuple[list[DeadLetter], list[LeftOut]]:
    """What can be read now, by whoever reads its topic in this deployment, and what cannot."""
    readable: list[DeadLetter] = []
    left_out: list[LeftOut] = []
    for letter in letters:
        why = _unreadable(letter, deployment)
        if why is None:
            readable.append(letter)
        else:
            left_out.append(LeftOut(letter=letter, why=why))
    return readable, left_out


def fitting(bus: Bus, left_out: Sequence[LeftOut], *, max_share: float) -> tuple[list[LeftOut], list[LeftOut]]:
    """Of what cannot be read: what ingest bears to find again without stopping, and the rest.

    `max_share` is the learner's, of a partition's recent records. Raises Unavailable.
    """
    room = {topic: _room(bus, topic, max_share) for topic in {one.letter.topic for one in left_out} if _capped(topic)}
    fits: list[LeftOut] = []
    rest: list[LeftOut] = []
    for one in left_out:
        topic = one.letter.topic
        if room.get(topic) == 0:
            rest.append(one)
            continue
        fits.append(one)
        if topic in room:
            room[topic] -= 1
    return fits, rest


def _unreadable(letter: DeadLetter, deployment: str) -> Unprocessable | None:
    if _capped(letter.topic):
        return decoding.read(replace(letter.record, place=Place(letter.topic, 0)), deployment=deployment).error
    decode = _UNCAPPED.get(letter.topic)
    if decode is None:
        return Unprocessable(f"nothing is known of topic {letter.topic!r}", reason="UNKNOWN_TOPIC")
    try:
        decode(letter.record.value)
    except Unprocessable as error:
        return error
    return None


def _capped(topic: str) -> bool:
    return topic in decoding.TOPICS


def _room(bus: Bus, topic: str, max_share: float) -> int:
    """How many unreadable events more ingest bears in whichever partition has least room: any may get them all.

    By the dead letters that are there; its own count is in the learner's store. It halves its counts about once in
    `WINDOW` records (`DeadLetters.recount`), so what lies far back weighs little.
    """
    ends = _ends(bus, topic)
    weights = dict.fromkeys(ends, 0.0)
    for partition, offset in {_origin(letter) for letter in read_dead_letters(bus, [dead_letter_topic(topic)])}:
        if partition in ends:
            weights[partition] += 0.5 ** max(0, (ends[partition] - offset) // WINDOW - 1)
    return max(0, int(max_share * WINDOW - max(weights.values(), default=0.0)))


def _ends(bus: Bus, topic: str) -> dict[int, int]:
    reader = bus.log_reader("dead-letters")
    try:
        return {place.partition: end for place, end in reader.end_offsets(reader.places(topic)).items()}
    finally:
        reader.close()


def _origin(letter: DeadLetter) -> tuple[int, int]:
    """Partition and offset where it had lain; (-1, -1) where nobody noted them, so ingest did not write it."""
    match = _ORIGIN.search(letter.origin)
    return (int(match[1]), int(match[2])) if match else (-1, -1)
