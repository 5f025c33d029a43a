"""The second half of a cycle: claim a batch, score it at one pinned reward model, learn, measure, release.

Whatever goes wrong on the way, a claimed experience ends in one of three ways: used (by the releaser, in the
transaction that commits the release), discarded with a reason, or given back open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.learner.ports import Candidates, Experience, ExperienceStore, ReleaseRow, RewardScorer, Verdict
from services.learner.trainer.batch_metrics import batch_metrics, phase_seconds
from services.learner.trainer.failed_updates import FailedUpdates, foreseen
from services.learner.trainer.learners import PolicyLearner, PolicyUpdate, ScoredExperience
from services.learner.trainer.pacing import Pacing
from services.learner.trainer.publication import Draft, Publication
from services.learner.trainer.status import Phase, StatusBoard
from services.shared.domain.release import ReleaseKind
from services.shared.domain.reward_terms import with_response_terms
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()


@dataclass(frozen=True, kw_only=True)
class BatchPace:
    """How much at a time, and how long the reward room may take."""

    rollouts: int
    rescore_timeout_s: float = 60.0


class PolicyStep:
    """Keeps the policy learner at the live policy, and moves both on together."""

    def __init__(
        self,
        learner: PolicyLearner,
        store: ExperienceStore,
        candidates: Candidates,
        reward: RewardScorer,
        publication: Publication,
        pacing: Pacing,
        board: StatusBoard,
        metrics: Metrics,
        pace: BatchPace,
    ) -> None:
        self._learner = learner
        self._store = store
        self._candidates = candidates
        self._reward = reward
        self._publication = publication
        self._pacing = pacing
        self._board = board
        self._metrics = metrics
        self._pace = pace
        self._held: ReleaseRow | None = None
        self._failures = FailedUpdates("update of the policy")

    def sync(self) -> ReleaseRow | None:
        """Makes the learner hold the live policy, also after a rollback or a refusal. None: none is live yet."""
        live = self._candidates.live(ReleaseKind.POLICY)
        if live is not None and (self._held is None or live.version != self._held.version):
            with self._board.phase(Phase.RESTORING):
                if live.parent_version:
                    self._publication.fetch(live, lambda folder, _: self._learner.restore(folder))
                else:
                    self._learner.reset()
            self._held = live
            self._board.tell(policy_version=live.version)
            _log.info("policy_restored", version=live.version)
        return self._held

    def drop_forgotten(self) -> None:
        """The learner drops what it keeps of people who have been forgotten meanwhile."""
        if to_drop := self._pacing.held.to_drop:
            self._learner.forget(to_drop)
            self._pacing.held.keep(self._learner.kept_rollouts)
            _log.info("kept_rollouts_forgotten", rollouts=len(to_drop))

    def lacking(self, parent: ReleaseRow) -> str:
        """Why there is no batch yet; empty where there is."""
        ready = self._store.ready_count(policy_version=parent.version)
        return "" if ready >= self._pace.rollouts else f"{ready} of {self._pace.rollouts} experiences are ready"

    def run(self, parent: ReleaseRow, reward_model_version: str) -> bool:
        """One update, from claim to verdict. False: no release came of it."""
        ids: list[str] = []
        submitted = False
        self._pacing.held.about_to_hold()
        try:
            claimed = self._store.claim(
                limit=self._pace.rollouts, policy_version=parent.version, reward_model_version=reward_model_version
            )
            ids = _ids(claimed)
            self._pacing.held.hold(ids)
            draft = self._learn(claimed, parent, reward_model_version)
            if draft is None:
                return False
            candidate = self._publication.write(draft)
            self._pacing.safe_point()
            submitted = True
            verdict = self._publication.decide(candidate)
            self._metrics.increment("thumbloop_trainer_updates_total", kind="policy", outcome="submitted")
            if verdict.forgotten:
                self._store.unclaim(ids)
                return False
            if not verdict.passed:
                self._refused(ids, verdict)
                return False
            self._passed(claimed, candidate.version)
            self._publication.wait_live(candidate)
            self._settle(candidate.version)
            return True
        finally:
            self._pacing.held.keep(self._learner.kept_rollouts)
            self._pacing.held.let_go()
            if not submitted and ids:
                # What was discarded meanwhile is not claimed any more, so it stays as it is.
                self._store.unclaim(ids)

    @property
    def problem(self) -> str:
        """What the last update failed of; empty where it did not."""
        return self._failures.last

    def _learn(self, claimed: Sequence[Experience], parent: ReleaseRow, reward_model_version: str) -> Draft | None:
        """From a claim to a measured candidate. None: there is none; what nothing can be learned from is discarded."""
        lame = _ids(experience for experience in claimed if not _whole(experience))
        if lame:
            # Left in, they would stop every batch that they come into.
            self._drop(lame, "its score came without log-probs of each token, or without features", "stale")
            return None
        if len(claimed) < self._pace.rollouts:
            return None
        draft = None
        try:
            batch = self._score(claimed, reward_model_version)
            self._pacing.safe_point()
            outcome = self._update(batch)
            if not outcome.skipped:
                draft = self._draft(parent, reward_model_version, batch, outcome)
        except Exception as error:
            if foreseen(error):
                raise
            self._failed(_ids(claimed), error)
            return None
        self._failures.succeeded()
        if draft is None:
            self._drop(_ids(claimed), outcome.skipped, "skipped")
        return draft

    def _failed(self, ids: Sequence[str], error: Exception) -> None:
        """Gives up those whose updates fail again and again. Raises the error where every update fails."""
        self._held = None  # The update may have come half-way: back to the live policy.
        self._metrics.increment("thumbloop_trainer_updates_total", kind="policy", outcome="failed")
        _log.error("update_failed", experiences=len(ids), exc_info=error)
        given_up = self._failures.note(ids, error)
        if given_up:
            self._drop(given_up, self._failures.last, "stale")

    def _settle(self, version: str) -> None:
        """The learner already holds what it has released; it need not be fetched again."""
        live = self._candidates.live(ReleaseKind.POLICY)
        if live is not None and live.version == version:
            self._held = live
            self._board.tell(policy_version=version)

    def _score(self, claimed: Sequence[Experience], version: str) -> list[ScoredExperience]:
        """Scores at the pinned version; what the store lacks is asked of the reward room, from features alone."""
        lacking = [experience for experience in claimed if experience.score_mean is None]
        asked: dict[str, tuple[float, float, tuple[tuple[str, float], ...]]] = {}
        if lacking:
            with self._board.phase(Phase.RESCORING):
                items = [(experience.rollout.rollout_id, experience.features) for experience in lacking]
                answers = self._reward.rescore(
                    items, reward_model_version=version, timeout_s=self._pace.rescore_timeout_s
                )
                asked = {item[0]: answer for item, answer in zip(items, answers, strict=True)}
        return [_scored(experience, asked.get(experience.rollout.rollout_id)) for experience in claimed]

    def _update(self, batch: Sequence[ScoredExperience]) -> PolicyUpdate:
        with self._board.phase(Phase.UPDATING_POLICY):
            self._held = None  # From here on the learner is not the live policy until a verdict says so.
            try:
                outcome = self._learner.update(batch)
            except FloatingPointError as error:
                outcome = PolicyUpdate(skipped=str(error))
        self._report(batch, outcome)
        return outcome

    def _draft(
        self, parent: ReleaseRow, reward_model_version: str, batch: Sequence[ScoredExperience], outcome: PolicyUpdate
    ) -> Draft:
        with self._board.phase(Phase.MEASURING):
            measured = self._learner.measure(batch)
        feedback = [item.experience.thumb_feedback_id for item in batch if item.experience.thumb_feedback_id]
        return Draft(
            kind=ReleaseKind.POLICY,
            parent=parent,
            save=self._learner.save,
            rollout_ids=[item.experience.rollout.rollout_id for item in batch],
            feedback_ids=feedback,
            reward_model_version=reward_model_version,
            settings=self._learner.settings,
            metrics={
                **batch_metrics(batch),
                **outcome.metrics,
                **measured,
                **phase_seconds(self._board.take_seconds()),
            },
        )

    def _refused(self, ids: Sequence[str], verdict: Verdict) -> None:
        self._drop(ids, "the gate refused: " + "; ".join(verdict.lines), "refused")

    def _drop(self, ids: Sequence[str], reason: str, outcome: str) -> None:
        _log.warning("experiences_discarded", count=len(ids), reason=reason)
        self._store.discard(ids, reason=reason)
        if outcome == "skipped":
            self._metrics.increment("thumbloop_trainer_updates_total", kind="policy", outcome="skipped")
        self._metrics.increment(
            "thumbloop_trainer_experiences_total", len(ids), outcome="refused" if outcome == "refused" else "stale"
        )

    def _passed(self, used: Sequence[Experience], version: str) -> None:
        _log.info("policy_released", version=version, experiences=len(used))
        self._metrics.increment("thumbloop_trainer_experiences_total", len(used), outcome="used")
        for experience in used:
            self._metrics.observe("thumbloop_trainer_staleness_updates", experience.staleness)

    def _report(self, batch: Sequence[ScoredExperience], outcome: PolicyUpdate) -> None:
        means = batch_metrics(batch)
        self._metrics.set("thumbloop_trainer_reward", means["reward_mean"], term="total")
        for name, value in means.items():
            if name.startswith("reward_term_"):
                self._metrics.set("thumbloop_trainer_reward", value, term=name.removeprefix("reward_term_"))
        if "kl_per_answer_batch" in outcome.metrics:
            self._metrics.set("thumbloop_trainer_kl_nats", outcome.metrics["kl_per_answer_batch"])
        if "entropy" in outcome.metrics:
            self._metrics.set("thumbloop_trainer_entropy_nats", outcome.metrics["entropy"])


def _ids(experiences: Iterable[Experience]) -> list[str]:
    return [experience.rollout.rollout_id for experience in experiences]


def _whole(experience: Experience) -> bool:
    """It has what every update and every reward model needs."""
    tokens = len(experience.rollout.response_token_ids)
    return 0 < tokens == len(experience.reference_log_probs) and bool(experience.features)


def _scored(
    experience: Experience, asked: tuple[float, float, tuple[tuple[str, float], ...]] | None
) -> ScoredExperience:
    if asked is not None:
        mean, spread, terms = asked
    else:
        # `_score` asked for every experience that has none.
        assert experience.score_mean is not None
        mean, spread, terms = experience.score_mean, experience.score_spread or 0.0, experience.score_terms
    return ScoredExperience(
        experience=experience,
        mean=mean,
        spread=spread,
        terms=with_response_terms(terms, experience.rollout.response_text),
    )
