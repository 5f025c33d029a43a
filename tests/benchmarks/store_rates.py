"""How fast a store of a given size takes the next experiences: the real write path, in slices.

A `Side` is one store. Its slices are taken in turn with another store's, so that whatever else happens on the machine
meets both alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from services.learner.ingest.batch import BatchWriter
from services.learner.ingest.dead_letters import DeadLetters
from services.learner.ingest.positions import Position, Positions
from services.learner.state.claims import SqlExperienceStore
from services.learner.state.fencing import LEADER
from services.shared.bus.interface import Place, Record
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.scores import encode_score
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.store.database import Database
from services.shared.store.leases import Leases
from tests.benchmarks.store_cpu import CpuClock
from tests.benchmarks.store_rows import make_facts, version_of
from tests.support.facts import DEPLOYMENT, at
from tests.support.learner_store import ManualClock
from tests.support.small_log import SmallLog

KINDS = ("ingest", "join", "claim")
RECORDS = 500
"""A batch of ingest, as in production."""

CLAIMED = 64
PLACES = {topic: Place(topic, 0) for topic in (ROLLOUTS, SCORES, FEEDBACK)}


@dataclass(kw_only=True)
class Spent:
    """Experiences and the seconds that they took; `slices`: of each slice by itself; `cpu_s`: of our process and the
    server's that serves it, which other programs on the machine hardly change."""

    experiences: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    slices: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Experiences a second."""
        return self.experiences / self.seconds


@dataclass
class Side:
    """A store of `size` experiences, and what was measured on it."""

    database: Database
    size: int
    spent: dict[str, Spent] = field(default_factory=lambda: {kind: Spent() for kind in KINDS})

    def __post_init__(self) -> None:
        self._ingested = 0
        self._cpu_s = CpuClock(self.database)
        self.clock = ManualClock(seconds=self.size * 0.1 + 3600)
        self.epoch = Leases(self.database, clock=self.clock, holder="bench", ttl_s=1e6).take(LEADER)
        self._experiences = SqlExperienceStore(
            self.database,
            clock=self.clock,
            epoch=self.epoch,
            max_staleness=4,
            unrated_wait_s=60.0,
            join_window_s=3600.0,
            claim_lease_s=1e6,
        )
        self._positions = Positions(self.database, clock=self.clock, holder="bench", ttl_s=1e6)
        taken = self._positions.take(
            dict.fromkeys(PLACES.values(), 0), "bench", room=dict.fromkeys(PLACES, len(PLACES))
        )
        self._held: dict[Place, Position] = {position.place: position for position in taken}
        self._writer = BatchWriter(
            self.database,
            self._positions,
            DeadLetters(SmallLog([]).publisher("bench"), max_share=0.1),
            deployment=DEPLOYMENT,
            clock=self.clock,
            gaps=False,
        )

    def slice(self, begin: int, end: int) -> None:
        """Ingests experiences `begin` to `end` - 1 beyond the store's size, then their thumbs, then claims as many."""
        facts = [make_facts(self.size + number) for number in range(begin, end)]
        rollouts = [(ROLLOUTS, rollout.rollout_id, encode_rollout(rollout)) for rollout, _, _ in facts]
        scores = [(SCORES, score.rollout_id, encode_score(score)) for _, score, _ in facts]
        thumbs = [(FEEDBACK, thumb.rollout_id, encode_feedback(thumb)) for _, _, thumb in facts]
        self._time("ingest", len(facts), lambda: self._write([*rollouts, *scores]))
        self._ingested = end
        self._time("join", len(facts), lambda: self._write(thumbs))
        self._claim(len(facts))
        for spent in self.spent.values():
            spent.slices.append(spent.seconds - sum(spent.slices))

    def ready_count_s(self) -> float:
        """Seconds of one count of what is ready."""
        begun = time.perf_counter()
        self._experiences.ready_count(policy_version=self._live)
        return time.perf_counter() - begun

    @property
    def _live(self) -> str:
        return version_of(self.size + self._ingested)

    def _write(self, events: Sequence[tuple[str, str, bytes]]) -> None:
        for begin in range(0, len(events), RECORDS):
            self._held |= self._writer.write(list(self._records(events[begin : begin + RECORDS])), self._held)

    def _records(self, events: Sequence[tuple[str, str, bytes]]) -> Iterator[Record]:
        following = {place: position.next for place, position in self._held.items()}
        for topic, key, value in events:
            place = PLACES[topic]
            yield Record(place=place, offset=following[place], key=key, value=value, headers={}, timestamp=at(0))
            following[place] += 1

    def _claim(self, count: int) -> None:
        claimed = 0
        while claimed < count:
            ids: list[str] = []

            def claim(limit: int = min(CLAIMED, count - claimed), ids: list[str] = ids) -> None:
                found = self._experiences.claim(limit=limit, policy_version=self._live, reward_model_version="none")
                ids.extend(experience.rollout.rollout_id for experience in found)

            self._time("claim", min(CLAIMED, count - claimed), claim)
            if len(ids) < min(CLAIMED, count - claimed):
                raise RuntimeError(f"only {len(ids)} experiences were ready; the store was not loaded as expected")
            self._experiences.discard(ids, reason="bench")
            claimed += len(ids)

    def _time(self, kind: str, experiences: int, act: Callable[[], None]) -> None:
        begun, cpu_begun = time.perf_counter(), self._cpu_s()
        act()
        self.spent[kind].seconds += time.perf_counter() - begun
        self.spent[kind].cpu_s += self._cpu_s() - cpu_begun
        self.spent[kind].experiences += experiences


def measure(sides: Sequence[Side], *, warm_up: int, count: int, slice_size: int, tell: Callable[[int], None]) -> None:
    """The first `warm_up` experiences of each store do not count; then the next `count` of each do, slice by slice in
    turn; the order changes with each slice."""
    for turn, begin in enumerate(range(0, warm_up + count, slice_size)):
        if begin == warm_up:
            for side in sides:
                side.spent.update({kind: Spent() for kind in KINDS})
        for side in sides if turn % 2 == 0 else tuple(reversed(sides)):
            side.slice(begin, begin + slice_size)
        tell(begin + slice_size)
