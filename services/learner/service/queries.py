"""All that the service asks of the store, in one object that needs a database and the learner's settings alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.learner.service.remembered import Remembered
from services.learner.state.candidates import SqlCandidates
from services.learner.state.claims import SqlExperienceStore
from services.learner.state.queries.feedback_fate import FeedbackFate, FeedbackFates
from services.learner.state.queries.release_lives import read_lives
from services.learner.state.queries.releases import ReleasePage, ReleaseView, ReleaseViews
from services.learner.state.queries.stored_feedback import FeedbackReference, stored_feedback
from services.learner.state.queries.stored_rollouts import stored_rollouts
from services.learner.state.queries.thumb_to_token import ThumbFigures, ThumbToToken, thumb_figures, thumb_times
from services.learner.state.queries.totals import Totals, read_totals
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import RolloutProgress
from services.shared.store.database import Database

MEASURED_THUMBS = 20_000
"""Thumb-to-token is of so many newest thumbs, so that a look costs the same whatever the store holds."""

THUMB_FIGURES_AGE = timedelta(seconds=2)
"""Figures may be this old, or older where computing them takes long."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where training and releases stand, as far as the store knows; totals and times as of a moment ago (`Remembered`:
    the more rows there are, the longer ago)."""

    policy_version: str
    reward_model_version: str
    totals: Totals
    ready: int
    thumb_to_token: ThumbToToken


class LearnerQueries:
    """Safe from any thread; every call blocks. Status and releases raise Busy while counting has only begun."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        experiences: SqlExperienceStore,
        candidates: SqlCandidates,
        join_window_s: float,
        orphan_after_s: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._experiences = experiences
        self._candidates = candidates
        self._fates = FeedbackFates(database, clock=clock, join_window_s=join_window_s, orphan_after_s=orphan_after_s)
        self._lives = Remembered(lambda _now: read_lives(database), clock=clock)
        self._views = ReleaseViews(database, lives=self._lives)
        self._totals = Remembered(lambda _now: read_totals(database), clock=clock)
        self._figures = Remembered(self._compute_figures, clock=clock, least=THUMB_FIGURES_AGE)

    def status(self) -> Status:
        """See `Status`. Versions are empty before release 0."""
        policy = self._candidates.live(ReleaseKind.POLICY)
        reward_model = self._candidates.live(ReleaseKind.REWARD_MODEL)
        return Status(
            policy_version=policy.version if policy else "",
            reward_model_version=reward_model.version if reward_model else "",
            totals=self._totals(),
            ready=self._experiences.ready_count(policy_version=policy.version) if policy else 0,
            thumb_to_token=self._figures().overall,
        )

    def feedback(self, *, tenant: str, feedback_id: str, rater_id: str = "", rollout_id: str = "") -> FeedbackFate:
        """See `FeedbackFates.find`. Raises NotFound."""
        return self._fates.find(tenant=tenant, feedback_id=feedback_id, rater_id=rater_id, rollout_id=rollout_id)

    def stored_feedback(self, *, tenant: str, references: Sequence[FeedbackReference]) -> list[bool]:
        """See the query of that name. Raises InvalidInput."""
        return stored_feedback(self._database, tenant=tenant, references=references)

    def stored_rollouts(self, *, tenant: str, rollout_ids: Sequence[str]) -> list[RolloutProgress]:
        """See the query of that name. Raises InvalidInput."""
        return stored_rollouts(self._database, tenant=tenant, rollout_ids=rollout_ids)

    def releases(self, *, kind: ReleaseKind | None, page_size: int, page_token: str) -> ReleasePage:
        """A page of releases, their lives as of a moment ago. Raises InvalidInput."""
        page = self._views.page(kind=kind, page_size=page_size, page_token=page_token)
        figures = self._figures()
        return ReleasePage(
            releases=tuple(_with_thumb_times(view, figures) for view in page.releases),
            next_page_token=page.next_page_token,
        )

    def release(self, version: str) -> tuple[ReleaseView, tuple[str, ...]]:
        """A release and the rollouts that it was trained on. Raises NotFound."""
        view, rollout_ids = self._views.one(version)
        return _with_thumb_times(view, self._figures()), rollout_ids

    def _compute_figures(self, now: datetime) -> ThumbFigures:
        return thumb_figures(thumb_times(self._database, now=now, newest=MEASURED_THUMBS))


def _with_thumb_times(view: ReleaseView, figures: ThumbFigures) -> ReleaseView:
    """Adds "thumb_to_token_p50_s": of the thumbs measured that this policy was the first to have learned from."""
    p50_s = figures.p50_s_by_policy.get(view.release.version)
    if p50_s is not None:
        view.metrics["thumb_to_token_p50_s"] = p50_s
    return view
