"""The releaser: one thread that leads, judges candidates, commits them and makes them known.

It works while the trainer is down: rolling back needs only the store and Kafka.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.learner.forgetting.orders import OrderOutbox
from services.learner.ports import Candidate, Verdict
from services.learner.releaser.announcer import Announcer
from services.learner.releaser.gate import judge
from services.learner.releaser.leadership import Leadership
from services.learner.releaser.outbox import Outbox
from services.learner.state.candidates import SqlCandidates
from services.learner.state.release_commits import ReleaseCommits
from services.learner.state.retention_rounds import RetentionRounds
from services.shared.domain.errors import ThumbloopError, Unavailable
from services.shared.domain.release import Announcement, ReleaseKind
from services.shared.settings.model import GateSettings
from services.shared.telemetry.log import get_logger

TURN_S = 0.05
"""Seconds between turns: what a candidate waits at most for its verdict to begin."""

RETRY_S = 1.0

FirstRelease = Callable[[int], Candidate]
"""Writes release 0 of a kind under an epoch."""

_log = get_logger(role="releaser")


class Releaser:
    """`start` runs `step` in a thread of its own until `stop`."""

    def __init__(
        self,
        *,
        leadership: Leadership,
        candidates: SqlCandidates,
        commits: ReleaseCommits,
        outbox: Outbox,
        announcer: Announcer,
        orders: OrderOutbox,
        retention: Sequence[RetentionRounds[Any]],
        gate: GateSettings,
        first_releases: Mapping[ReleaseKind, FirstRelease],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """All collaborators under the epoch that `leadership` has taken."""
        self._leadership = leadership
        self._candidates = candidates
        self._commits = commits
        self._outbox = outbox
        self._announcer = announcer
        self._orders = orders
        self._retention = retention
        self._gate = gate
        self._first_releases = first_releases
        self._on_failure = on_failure
        self._begun = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins. Kafka need not be there."""
        self._thread = threading.Thread(target=self._run, name="releaser", daemon=True)
        self._thread.start()

    def drain(self, timeout_s: float) -> None:
        """Ends after the present turn. What is in the outbox is sent after the next start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def stop(self) -> None:
        """`drain`, and lets another lead at once. Twice is once."""
        self.drain(10.0)
        self._leadership.give_back()

    def step(self) -> None:
        """One turn. Raises Fenced when another leads, and whatever else must end the process."""
        self._leadership.keep()
        if not self._begun:
            self._begin()
            self._begun = True
        for candidate in self._candidates.undecided():
            self.decide(candidate)
        self._outbox.step()
        self._orders.step()
        self._announcer.step()
        for one in self._retention:
            one.step()

    def decide(self, candidate: Candidate) -> Verdict:
        """Judges a candidate and commits or refuses it."""
        live = self._candidates.live(candidate.kind)
        verdict = judge(
            candidate,
            settings=self._gate,
            epoch=self._leadership.epoch,
            live_version=live.version if live else "",
        )
        if verdict.passed:
            self._commits.commit(candidate, verdict)
        else:
            self._commits.refuse(candidate, verdict)
        _log.info("candidate_judged", version=candidate.version, passed=verdict.passed, verdict=list(verdict.lines))
        return verdict

    def roll_back(self, version: str) -> Announcement:
        """Puts a version back. From any thread. Raises NotFound, FailedPrecondition, Fenced."""
        announcement = self._commits.roll_back(version)
        _log.warning("rolled_back", version=version, kind=str(announcement.kind), sequence=announcement.sequence)
        return announcement

    def _begin(self) -> None:
        """Release 0 of each kind that has none; of the others the live one is announced under the new epoch."""
        for kind, write in self._first_releases.items():
            if self._candidates.live(kind) is None:
                first = write(self._leadership.epoch)
                self._commits.commit_first(first)
                _log.info("first_release", version=first.version)
            else:
                self._commits.announce_again(kind)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self.step()
                    self._stopping.wait(TURN_S)
                except Unavailable as error:
                    _log.warning("releaser_waits", error=error.message)
                    self._stopping.wait(RETRY_S)
        except BaseException as error:
            message = error.message if isinstance(error, ThumbloopError) else repr(error)
            _log.error("releaser_stopped", error=message)
            self._on_failure(error)
