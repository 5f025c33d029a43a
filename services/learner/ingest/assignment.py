"""Which partitions this process reads: its fair share of them, under leases, of logs that are still the ones it knew.

A *round* is made every third of a lease: leases are renewed, what is more than the fair share is given back, what is
free is taken, partitions that were added to a topic are found. It runs between two batches, so a partition is never
handed over in the middle of one.

A partition is looked at (`continuity`) when it is taken, and again when its *incarnation* changes, which is how a
reconnection shows: another cluster, the topic made again, another leader of the partition.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.learner.ingest.continuity import check_continuity, check_partitions
from services.learner.ingest.decoding import TOPICS
from services.learner.ingest.members import Members
from services.learner.ingest.positions import Position, Positions
from services.learner.ingest.sharing import shares, surplus
from services.shared.bus.interface import LogReader, Place
from services.shared.telemetry.log import get_logger

_log = get_logger(role="ingest")


class Assignment:
    """What is held now, by partition."""

    def __init__(self, positions: Positions, members: Members, *, holder: str, deployment: str, embedded: bool) -> None:
        """`embedded`: a log that is another one is read again from its start, instead of stopping."""
        self._positions = positions
        self._members = members
        self._holder = holder
        self._deployment = deployment
        self._embedded = embedded
        self._incarnations: dict[Place, str] = {}
        self._living: tuple[str, ...] = ()
        self.held: dict[Place, Position] = {}

    @property
    def leads(self) -> bool:
        """First of the living members: the one that does what only one needs to do."""
        return self._living[:1] == (self._holder,)

    def go_round(self, reader: LogReader) -> None:
        """One round; afterwards `reader` is assigned to `held`. Raises Unavailable, Corrupt (another log), Fenced
        (another process under the same name)."""
        self._living = self._members.keep()
        places = [place for topic in TOPICS for place in reader.places(topic)]
        if not self._embedded:
            check_partitions(self._positions.read_from(), places)
        incarnations = reader.incarnations(places)
        same = [place for place in self.held if incarnations.get(place) == self._incarnations.get(place)]
        kept = {position.place: position for position in self._positions.renew([self.held[place] for place in same])}
        counts = {topic: sum(place.topic == topic for place in places) for topic in TOPICS}
        share = shares(counts, self._living, self._holder)
        too_much = [kept.pop(place) for place in surplus(kept, share)]
        self._positions.give_back(too_much)
        taken = self._take(reader, [place for place in places if place not in kept], kept, share)
        if taken or kept.keys() != self.held.keys():
            self.held = kept | {position.place: position for position in taken}
            self._incarnations = {place: incarnations[place] for place in self.held}
            reader.assign({place: position.next for place, position in self.held.items()})
            _log.info("partitions_assigned", partitions=len(self.held), members=len(self._living))

    def drop(self) -> None:
        """Forgets what it thinks it holds; the next round asks SQL and Kafka again."""
        self.held = {}
        self._incarnations = {}

    def give_back(self) -> None:
        """Another process may take the partitions, and this one's share, at once."""
        self._positions.give_back(self.held.values())
        self.drop()
        self._members.leave()
        self._members.forget_the_silent()

    def _take(
        self, reader: LogReader, missing: Sequence[Place], kept: dict[Place, Position], share: dict[str, int]
    ) -> list[Position]:
        room = {topic: most - sum(place.topic == topic for place in kept) for topic, most in share.items()}
        wanted = [place for place in missing if room[place.topic] > 0]
        if not wanted:
            return []
        topic_ids = None if self._embedded else {topic: reader.topic_id(topic) for topic in TOPICS}
        beginnings = reader.beginning_offsets(wanted)
        taken = self._positions.take(beginnings, reader.cluster_id(), room=room, topic_ids=topic_ids)
        return self._checked(reader, taken)

    def _checked(self, reader: LogReader, taken: Sequence[Position]) -> list[Position]:
        """The positions to read on from. Raises Corrupt where the log is another one (embedded: starts it again)."""
        wrong = check_continuity(reader, taken, deployment=self._deployment)
        if wrong and not self._embedded:
            raise next(iter(wrong.values()))
        checked: list[Position] = []
        for position in taken:
            if position.place in wrong:
                _log.warning("partition_read_again", partition=str(position.place), error=wrong[position.place].message)
                beginning = reader.beginning_offsets([position.place])[position.place]
                position = self._positions.restart(position, beginning=beginning, cluster_id=reader.cluster_id())
            checked.append(position)
        return checked
