"""The first half of a cycle: test the reward model on new thumbs, train it, see it released and resident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.learner.ports import Candidate, Candidates, ExperienceStore, RatedExample, ReleaseRow
from services.learner.trainer.failed_updates import FailedUpdates, foreseen
from services.learner.trainer.learners import RewardLearner, RewardUpdate
from services.learner.trainer.pacing import Pacing
from services.learner.trainer.publication import Draft, Publication
from services.learner.trainer.seen_thumbs import SeenThumbs
from services.learner.trainer.status import Phase, StatusBoard
from services.shared.domain.release import ReleaseKind
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()


@dataclass(frozen=True, kw_only=True)
class RewardPace:
    """When it is worth training."""

    min_new_thumbs: int


class RewardStep:
    """Keeps the reward learner at the live reward model, and moves both on together."""

    def __init__(
        self,
        learner: RewardLearner,
        store: ExperienceStore,
        candidates: Candidates,
        publication: Publication,
        pacing: Pacing,
        board: StatusBoard,
        metrics: Metrics,
        pace: RewardPace,
    ) -> None:
        self._learner = learner
        self._store = store
        self._candidates = candidates
        self._publication = publication
        self._pacing = pacing
        self._board = board
        self._metrics = metrics
        self._pace = pace
        self._held: ReleaseRow | None = None
        self._in_vain = SeenThumbs()
        """What the last training found that made no release."""
        self._failures = FailedUpdates("training of the reward model")

    def sync(self) -> ReleaseRow | None:
        """Makes the learner hold the live reward model, also after a rollback. None: none is live yet."""
        live = self._candidates.live(ReleaseKind.REWARD_MODEL)
        if live is not None and (self._held is None or live.version != self._held.version):
            with self._board.phase(Phase.RESTORING):
                self._restore(live)
            self._held = live
            self._tell()
        return self._held

    def due(self, *, before_update: bool) -> bool:
        """Enough thumbs have come since the last training, and since the last one that had nothing to learn from.

        `before_update`: the policy is about to learn, so that a single new thumb is enough.
        """
        threshold = 1 if before_update else self._pace.min_new_thumbs
        # The newest alone: whatever is new is among them, and features are heavy.
        newest = self._store.rated_examples(limit=max(2 * threshold, 32))
        return self._learner.unseen([example for example in newest if example not in self._in_vain]) >= threshold

    def run(self, parent: ReleaseRow) -> bool:
        """Trains and releases. False: nothing to learn, or the gate refused; then only more thumbs make it due."""
        with self._board.phase(Phase.TRAINING_REWARD_MODEL):
            candidate, tried = self._make(parent)
        if candidate is None:
            self._in_vain = tried
            return False
        self._metrics.increment("thumbloop_trainer_updates_total", kind="reward_model", outcome="submitted")
        self._held = None  # Back to the live one at the next `sync`, unless a verdict makes this one live.
        verdict = self._publication.decide(candidate)
        self._in_vain = SeenThumbs() if verdict.passed or verdict.forgotten else tried
        if not verdict.passed:
            return False
        self._publication.wait_live(candidate)
        live = self._candidates.live(ReleaseKind.REWARD_MODEL)
        if live is not None and live.version == candidate.version:
            self._held = live
            self._board.tell(reward_model_version=candidate.version)
            self._publication.wait_served(candidate.version)
        return True

    @property
    def problem(self) -> str:
        """What the last training failed of; empty where it did not."""
        return self._failures.last

    def _make(self, parent: ReleaseRow) -> tuple[Candidate | None, SeenThumbs]:
        """A candidate, and what it was made of; features are in memory meanwhile, and nowhere after it."""
        self._pacing.held.about_to_hold()
        try:
            examples = self._store.rated_examples()
            self._pacing.held.hold([example.rollout_id for example in examples])
            update = self._train(examples)
            self._tell()
            if update is None:
                return None, SeenThumbs(examples)
            candidate = self._publication.write(self._draft(parent, update))
            self._pacing.safe_point()
            return candidate, SeenThumbs(examples)
        except Exception:
            self._held = None  # The training may have come half-way: back to the live one at the next `sync`.
            raise
        finally:
            self._pacing.held.let_go()

    def _train(self, examples: Sequence[RatedExample]) -> RewardUpdate | None:
        """None: nothing to learn, or it failed for a reason that nobody foresaw; raised where it fails every time."""
        try:
            update = self._learner.train(examples)
        except Exception as error:
            if foreseen(error):
                raise
            self._held = None  # Back to the live one at the next `sync`.
            self._metrics.increment("thumbloop_trainer_updates_total", kind="reward_model", outcome="failed")
            _log.error("reward_training_failed", thumbs=len(examples), exc_info=error)
            self._failures.note((), error)
            return None
        self._failures.succeeded()
        return update

    def _draft(self, parent: ReleaseRow, update: RewardUpdate) -> Draft:
        return Draft(
            kind=ReleaseKind.REWARD_MODEL,
            parent=parent,
            save=self._learner.save,
            rollout_ids=update.rollout_ids,
            feedback_ids=update.feedback_ids,
            reward_model_version="",
            settings=self._learner.settings,
            metrics={"finite": 1.0, **update.metrics},
        )

    def _restore(self, live: ReleaseRow) -> None:
        if not live.parent_version:
            self._learner.reset()
            return
        self._publication.fetch(
            live,
            lambda folder, manifest: self._learner.restore(
                folder, rollout_ids=manifest.rollout_ids, feedback_ids=manifest.feedback_ids
            ),
        )

    def _tell(self) -> None:
        tested = self._learner.tested()
        self._board.tell(reward_model_version=self._held.version if self._held else "", tested=tested)
        if tested is not None:
            self._metrics.set("thumbloop_reward_model_auroc", tested[0], bound="mean")
            self._metrics.set("thumbloop_reward_model_auroc", tested[1], bound="low95")
