"""How many partitions each ingest process should hold. Pure; every process computes the same from the same members.

Each topic is shared evenly by itself, since topics differ in load. What an uneven division leaves over goes to the
next members in turn, topic after topic, so that no member gets it all. Only numbers are agreed on, not which
partitions: whoever has enough keeps what it has, and a newcomer costs as few moves as can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services.shared.bus.interface import Place


def shares(partitions: Mapping[str, int], members: Sequence[str], me: str) -> dict[str, int]:
    """Partitions of each topic that `me` should hold; over all members they add up to the topic's `partitions`."""
    found: dict[str, int] = {}
    first = 0
    for topic in sorted(partitions):
        each, over = divmod(partitions[topic], len(members))
        rank = (members.index(me) - first) % len(members)
        found[topic] = each + (rank < over)
        first += over
    return found


def surplus(held: Iterable[Place], share: Mapping[str, int]) -> list[Place]:
    """What to give back of what is held; the highest partitions go."""
    kept: dict[str, int] = {}
    given: list[Place] = []
    for place in sorted(held):
        if kept.get(place.topic, 0) < share.get(place.topic, 0):
            kept[place.topic] = kept.get(place.topic, 0) + 1
        else:
            given.append(place)
    return given
