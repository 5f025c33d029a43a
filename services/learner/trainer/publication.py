"""From a learner's state to a candidate in the releaser's hands, and its verdict back.

The checkpoint is written create-if-absent below a path that holds the learner's epoch and the digest of its content, so
a trainer that was killed and started again can never meet half a release under the name of its own.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.learner.forgetting.lineage import FORGOTTEN
from services.learner.ports import FORGOTTEN_LINE, Candidate, Candidates, ReleaseRow, Verdict
from services.learner.trainer.pacing import Pacing
from services.learner.trainer.status import Phase, StatusBoard
from services.shared.checkpoints import CheckpointStore, Manifest, content_digest, digests_of, release_path
from services.shared.domain.errors import DeadlineExceeded, FailedPrecondition
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind, version_id
from services.shared.telemetry.log import get_logger

_log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Whose releases these are: parts of every manifest that do not change while the trainer lives."""

    epoch: int
    base_model_name: str
    base_model_digest: str


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long the trainer waits for others, in seconds."""

    verdict_s: float = 120.0
    """For the releaser; past it something is wrong with the process itself, and it ends."""
    publication_s: float = 60.0
    """For a passed candidate to be announced as live."""
    acknowledge_s: float = 60.0
    """For a replica to say that it serves it; past it the cycle goes on."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a step wants to be released."""

    kind: ReleaseKind
    parent: ReleaseRow
    save: Callable[[Path], Mapping[str, Path]]
    rollout_ids: Sequence[str]
    feedback_ids: Sequence[str]
    reward_model_version: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]


class Publication:
    """Writes, submits, and waits for what becomes of it."""

    def __init__(
        self,
        candidates: Candidates,
        checkpoints: CheckpointStore,
        origin: Origin,
        pacing: Pacing,
        board: StatusBoard,
        *,
        now: Clock,
        scratch: Path,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`scratch`: a folder for files on their way; what a killed trainer left there may be removed."""
        self._candidates = candidates
        self._checkpoints = checkpoints
        self._origin = origin
        self._pacing = pacing
        self._board = board
        self._now = now
        self._scratch = scratch
        self._deadlines = deadlines or Deadlines()

    def fetch(self, release: ReleaseRow, read: Callable[[Path, Manifest], None]) -> None:
        """Downloads and verifies a release and hands its folder to `read`, which must be done with it on return."""
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="fetch-") as scratch:
            folder = Path(scratch) / "release"
            manifest = self._checkpoints.fetch(release.checkpoint_path, release.manifest_sha256, folder)
            read(folder, manifest)

    def write(self, draft: Draft) -> Candidate:
        """The checkpoint with its manifest; nothing is submitted yet."""
        metrics, dropped = _finite(draft.metrics)
        if dropped:
            _log.warning("metrics_not_finite", names=sorted(dropped))
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="write-") as scratch:
            files = dict(draft.save(Path(scratch)))
            number = self._candidates.next_number(draft.kind)
            version = version_id(
                draft.kind,
                epoch=self._origin.epoch,
                number=number,
                content_sha256=content_digest(digests_of(files)),
            )
            path = release_path(draft.kind, epoch=self._origin.epoch, version=version)
            manifest = Manifest(
                version=version,
                kind=draft.kind,
                epoch=self._origin.epoch,
                number=number,
                parent_version=draft.parent.version,
                base_model_name=self._origin.base_model_name,
                base_model_digest=self._origin.base_model_digest,
                rollout_ids=tuple(draft.rollout_ids),
                feedback_ids=tuple(draft.feedback_ids),
                reward_model_version=draft.reward_model_version,
                settings=draft.settings,
                metrics=metrics,
                created_time=self._now(),
            )
            _, manifest_sha256 = self._checkpoints.put_release(path, files, manifest)
        return Candidate(
            version=version,
            kind=draft.kind,
            epoch=self._origin.epoch,
            number=number,
            parent_version=draft.parent.version,
            checkpoint_path=path,
            manifest_sha256=manifest_sha256,
            base_model_digest=self._origin.base_model_digest,
            reward_model_version=draft.reward_model_version,
            rollout_ids=manifest.rollout_ids,
            feedback_ids=manifest.feedback_ids,
            metrics=metrics,
        )

    def decide(self, candidate: Candidate) -> Verdict:
        """Submits and waits for the gate. Raises DeadlineExceeded when the releaser does not answer."""
        try:
            self._candidates.submit(candidate)
        except FailedPrecondition as error:
            if error.reason != FORGOTTEN:
                raise
            _log.warning("candidate_not_submitted", version=candidate.version, message=error.message)
            return Verdict(passed=False, lines=(FORGOTTEN_LINE,))
        _log.info("candidate_submitted", version=candidate.version, parent=candidate.parent_version)
        with self._board.phase(Phase.GATING):
            verdict = self._pacing.until(
                lambda: self._candidates.verdict(candidate.version), timeout_s=self._deadlines.verdict_s
            )
        if verdict is None:
            raise DeadlineExceeded(f"no verdict on {candidate.version} within {self._deadlines.verdict_s:g} s")
        if not verdict.passed:
            _log.warning("candidate_refused", version=candidate.version, verdict=list(verdict.lines))
        return verdict

    def wait_live(self, candidate: Candidate) -> None:
        """Until the passed candidate is live, or something else has taken its parent's place (a rollback).

        Raises DeadlineExceeded.
        """
        with self._board.phase(Phase.STAGING):
            moved = self._pacing.until(
                lambda: self._live_version(candidate.kind) not in ("", candidate.parent_version),
                timeout_s=self._deadlines.publication_s,
            )
        if not moved:
            raise DeadlineExceeded(
                f"{candidate.version} passed the gate and was not announced within {self._deadlines.publication_s:g} s"
            )

    def wait_served(self, version: str) -> bool:
        """Until a replica serves the version. False: none said so in time."""
        with self._board.phase(Phase.STAGING):
            served = self._pacing.until(
                lambda: bool(self._candidates.acknowledged_by(version)), timeout_s=self._deadlines.acknowledge_s
            )
        if not served:
            _log.warning("release_not_acknowledged", version=version, waited_s=self._deadlines.acknowledge_s)
        return bool(served)

    def _live_version(self, kind: ReleaseKind) -> str:
        live = self._candidates.live(kind)
        return live.version if live else ""


def _finite(metrics: Mapping[str, float]) -> tuple[dict[str, float], set[str]]:
    """A manifest holds finite numbers alone. That something was not finite is itself a measure: "finite" becomes 0."""
    kept = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    dropped = set(metrics) - set(kept)
    return ({**kept, "finite": 0.0} if dropped else kept), dropped
