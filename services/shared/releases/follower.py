"""A replica's way to the live version: read `policies`, stage, flip, acknowledge.

*Staging* brings a version beside the one that serves: download, check every digest, load. The *flip* makes it the one
that serves. What is *wanted* is the announcement with the greatest (epoch, sequence) of a kind; a late writer with an
old epoch changes nothing. A stage that fails leaves the old version serving, says so to the learner, and is tried again
until it succeeds or something newer is wanted. A replica is *caught up* once it has read all that was in the topic when
it started and serves what that came to: only then it is ready.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.shared.bus.interface import LogReader, Record
from services.shared.contracts.policies import decode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.errors import Misconfigured, ThumbloopError, Unprocessable
from services.shared.domain.release import Announcement, ReleaseKind
from services.shared.releases.acknowledger import Acknowledge, Acknowledgement
from services.shared.releases.backoff import Backoff
from services.shared.releases.loop_thread import LoopThread
from services.shared.releases.staging_area import ReleaseSource, StagingArea
from services.shared.releases.topic_tail import TopicTail
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()


class StageTarget(Protocol):
    """What takes versions: an engine, a scorer. Called from the follower's thread, one call at a time."""

    def stage(self, announcement: Announcement, folder: Path) -> None:
        """Loads the version beside the one that serves. `folder` holds the verified files and manifest.json; it may go
        once this returned and another version is live. A version that is resident may be staged again. Any error leaves
        what serves as it is.
        """

    def flip(self, announcement: Announcement) -> None:
        """Makes the staged version serve; returns when it does."""


@dataclass(frozen=True, kw_only=True)
class FollowerSettings:
    """Intervals in seconds: `retry_*` after a failed stage, `log_retry_max_s` while the log is away.

    At most `poll_records` events are read at a time; `keep_folders` releases stay on disk, the live one among them.
    """

    poll_s: float = 0.2
    poll_records: int = 500
    retry_first_s: float = 0.5
    retry_max_s: float = 15.0
    log_retry_max_s: float = 2.0
    keep_folders: int = 3


@dataclass(frozen=True, kw_only=True)
class FollowerStatus:
    """Where a follower is. `stage_error` is empty unless the last stage failed."""

    live: Announcement | None = None
    staging_version: str = ""
    stage_error: str = ""


class ReleaseFollower:
    """Follows one kind. `start` gives it a thread; `stop` ends that; `step` is one round, for whoever drives it."""

    def __init__(
        self,
        *,
        kind: ReleaseKind,
        deployment: str,
        open_reader: Callable[[], LogReader],
        source: ReleaseSource,
        target: StageTarget,
        acknowledge: Acknowledge,
        staging_dir: Path,
        metrics: Metrics,
        names: Collection[str] | None = None,
        base_model_digest: str | None = None,
        settings: FollowerSettings | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`names` are the files that the target needs (None: all). A release of another base model than
        `base_model_digest` is refused (None: the target has none). `staging_dir` is this replica's alone.
        """
        settings = settings or FollowerSettings()
        self._kind = kind
        self._deployment = deployment
        self._target = target
        self._acknowledge = acknowledge
        self._metrics = metrics
        self._base_model_digest = base_model_digest
        self._poll_s = settings.poll_s
        self._monotonic = monotonic
        self._tail = TopicTail(
            open_reader=open_reader, topic=POLICIES, monotonic=monotonic, max_records=settings.poll_records
        )
        self._area = StagingArea(root=staging_dir / kind, source=source, names=names, keep=settings.keep_folders)
        self._backoff = Backoff(first_s=settings.retry_first_s, max_s=settings.retry_max_s, monotonic=monotonic)
        self._wanted: Announcement | None = None
        self._status = FollowerStatus()
        self._caught_up = threading.Event()
        self._thread = LoopThread(f"follow-{kind}", self.step, self._tail.close, settings.log_retry_max_s)

    @property
    def status(self) -> FollowerStatus:
        """As of now; from any thread."""
        return self._status

    @property
    def caught_up(self) -> bool:
        """Whether the version that was live at the start (or a newer one) serves. Stays true."""
        return self._caught_up.is_set()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Waits for it, at most so long."""
        return self._caught_up.wait(timeout_s)

    def start(self) -> None:
        """Follows in a thread of its own, which no error of the log, the store or the target ends."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the thread, after the stage that runs, and closes the reader. Twice is once."""
        self._thread.stop(timeout_s)

    def step(self) -> None:
        """Reads what is there and, where something newer is wanted, tries once to take it live. Raises Unavailable
        when the log is away; the next step begins again.
        """
        for record in self._tail.poll(self._poll_timeout_s()):
            self._consider(record)
        # At the start only the last word counts: nothing is staged that would be replaced at once.
        if (self._tail.at_end or self.caught_up) and self._pending() and self._backoff.remaining_s() == 0:
            self._take_live(self._wanted_now())
        if self._tail.at_end and self._status.live is not None and not self._pending():
            self._caught_up.set()

    def _pending(self) -> bool:
        return self._wanted is not None and self._wanted is not self._status.live

    def _wanted_now(self) -> Announcement:
        assert self._wanted is not None
        return self._wanted

    def _poll_timeout_s(self) -> float:
        return min(self._poll_s, self._backoff.remaining_s()) if self._pending() else self._poll_s

    def _consider(self, record: Record) -> None:
        """Keeps the greatest announcement of the kind."""
        try:
            announcement = decode_announcement(record.value)
        except Unprocessable as error:
            self._skip(record, error.reason, error.message)
            return
        if announcement.meta.deployment != self._deployment:
            self._skip(record, "OTHER_DEPLOYMENT", f"It is of the deployment {announcement.meta.deployment!r}.")
        elif announcement.kind is self._kind and (self._wanted is None or announcement.order > self._wanted.order):
            self._wanted = announcement
            self._backoff.reset()

    def _skip(self, record: Record, reason: str, message: str) -> None:
        self._metrics.increment("thumbloop_release_skipped_events_total", reason=reason)
        place = f"{record.place.topic}/{record.place.partition}@{record.offset}"
        _log.warning("announcement_skipped", place=place, reason=reason, message=message)

    def _take_live(self, wanted: Announcement) -> None:
        live = self._status.live
        if live is not None and (live.version, live.manifest_sha256) == (wanted.version, wanted.manifest_sha256):
            self._status = FollowerStatus(live=wanted)
            self._say(wanted)
            return
        started = self._monotonic()
        self._status = FollowerStatus(live=live, staging_version=wanted.version, stage_error=self._status.stage_error)
        try:
            self._stage_and_flip(wanted)
        except Exception as error:  # whatever it is, the old version goes on serving
            self._failed(wanted, live, error)
        else:
            self._succeeded(wanted, self._monotonic() - started)

    def _stage_and_flip(self, wanted: Announcement) -> None:
        if self._base_model_digest not in (None, wanted.base_model_digest):
            raise Misconfigured(
                f"{wanted.version} belongs to the base model {wanted.base_model_digest[:12]!r}, this replica runs "
                f"{(self._base_model_digest or '')[:12]!r}. Give every room the same `model.path`.",
                reason="OTHER_BASE_MODEL",
            )
        self._area.prepare()
        self._target.stage(wanted, self._area.fetch(wanted))
        self._target.flip(wanted)

    def _succeeded(self, wanted: Announcement, seconds: float) -> None:
        self._status = FollowerStatus(live=wanted)
        self._backoff.reset()
        self._area.prune(wanted.version)
        kind = str(wanted.kind)
        self._metrics.increment("thumbloop_release_flips_total", kind=kind)
        self._metrics.observe("thumbloop_release_stage_seconds", seconds, kind=kind)
        self._metrics.set_only("thumbloop_release_info", 1, within=("kind",), kind=kind, version=wanted.version)
        _log.info(
            "release_live", kind=kind, version=wanted.version, sequence=wanted.sequence, seconds=round(seconds, 3)
        )
        self._say(wanted)

    def _failed(self, wanted: Announcement, live: Announcement | None, error: Exception) -> None:
        reason = error.reason if isinstance(error, ThumbloopError) else "FAULT"
        message = error.message if isinstance(error, ThumbloopError) else f"{type(error).__name__}: {error}"
        retry_s = self._backoff.failed()
        self._metrics.increment("thumbloop_release_stage_failures_total", kind=str(wanted.kind), reason=reason)
        _log.warning(
            "stage_failed",
            version=wanted.version,
            reason=reason,
            message=message,
            retry_s=retry_s,
            exc_info=None if isinstance(error, ThumbloopError) else error,
        )
        self._status = FollowerStatus(live=live, stage_error=message)
        self._say(wanted, stage_error=message)

    def _say(self, announcement: Announcement, stage_error: str = "") -> None:
        self._acknowledge(
            Acknowledgement(
                kind=announcement.kind,
                epoch=announcement.epoch,
                sequence=announcement.sequence,
                version=announcement.version,
                stage_error=stage_error,
            )
        )
