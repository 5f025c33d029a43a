"""Releases with what is known of them by now: who serves them, since when, and what users said of their answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from services.learner.ports import ReleaseRow
from services.learner.state.first_served import first_served_time
from services.learner.state.release_rows import release_from
from services.learner.state.training_sets import TrainingSets
from services.shared.domain.errors import InvalidInput, NotFound
from services.shared.domain.feedback import FeedbackKind
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import Purpose
from services.shared.store.columns import from_micros, to_micros
from services.shared.store.database import Database
from services.shared.store.tables import acknowledgements, feedback_slots, releases, rollout_versions, uses

DEFAULT_PAGE = 50
LARGEST_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """A release as shown. `metrics` holds the candidate's own measures, and those of its life: "answers" (users'
    responses with at least one token of it), "thumbs", "thumbs_up_rate" (of responses drawn by it alone), as far as the
    store still has the rollouts."""

    release: ReleaseRow
    experiences: int
    first_served_time: datetime | None
    acknowledged_by: tuple[str, ...]
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ReleasePage:
    """Newest first; `next_page_token` "" on the last page."""

    releases: tuple[ReleaseView, ...]
    next_page_token: str


class ReleaseViews:
    """Reads releases for people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, *, kind: ReleaseKind | None, page_size: int, page_token: str) -> ReleasePage:
        """Raises InvalidInput for a size or token out of range."""
        if not 0 <= page_size <= LARGEST_PAGE:
            raise InvalidInput(f"page_size is {page_size}; take 1 to {LARGEST_PAGE}, or 0.", field="page_size")
        size = page_size or DEFAULT_PAGE
        query = select(releases).order_by(releases.c.commit_time.desc(), releases.c.version.desc()).limit(size + 1)
        if kind is not None:
            query = query.where(releases.c.kind == kind.value)
        if page_token:
            query = query.where(_before(page_token))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            views = tuple(_view(connection, release_from(row), row.experiences) for row in rows[:size])
        last = rows[size - 1] if len(rows) > size else None
        return ReleasePage(
            releases=views,
            next_page_token=f"{to_micros(last.commit_time)}.{last.version}" if last is not None else "",
        )

    def one(self, version: str) -> tuple[ReleaseView, tuple[str, ...]]:
        """A release and the rollouts that it was trained on, but for those past retention. Raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(releases).where(releases.c.version == version)).one_or_none()
            if row is None:
                raise NotFound(
                    f"there is no release {version!r}. `thumbloop policies list` shows all.", field="version"
                )
            release = release_from(row)
            return _view(connection, release, row.experiences), tuple(sorted(_trained_on(connection, release)))


def _trained_on(connection: Connection, release: ReleaseRow) -> set[str]:
    """Rollouts of the batch or the training set."""
    if release.kind is ReleaseKind.REWARD_MODEL:
        return {thumb.rollout_id for thumb in TrainingSets(connection).thumbs(release.version)}
    return set(connection.scalars(select(uses.c.rollout_id).where(uses.c.version == release.version)))


def _before(page_token: str) -> ColumnElement[bool]:
    """Releases that come after the token's, newest first."""
    micros, _, version = page_token.partition(".")
    if not micros.isdecimal() or not version:
        raise InvalidInput("page_token is none of ours; take it from the last response.", field="page_token")
    time = from_micros(int(micros))
    return or_(releases.c.commit_time < time, and_(releases.c.commit_time == time, releases.c.version < version))


def _view(connection: Connection, release: ReleaseRow, experiences: int) -> ReleaseView:
    replicas = select(acknowledgements.c.replica_id).where(acknowledgements.c.version == release.version)
    policy = release.kind is ReleaseKind.POLICY
    return ReleaseView(
        release=release,
        experiences=experiences,
        first_served_time=_first_served(connection, release.version) if policy else None,
        acknowledged_by=tuple(sorted(connection.scalars(replicas))),
        metrics=dict(release.metrics) | (_life(connection, release.version) if policy else {}),
    )


def _first_served(connection: Connection, version: str) -> datetime | None:
    time: datetime | None = connection.scalar(select(first_served_time()).where(releases.c.version == version))
    return time


def _life(connection: Connection, version: str) -> dict[str, float]:
    """What users got from a policy version, and said of it."""
    by_version = and_(rollout_versions.c.policy_version == version, rollout_versions.c.purpose == Purpose.USER.value)
    answers = connection.scalar(select(func.count()).select_from(rollout_versions).where(by_version)) or 0
    thumb = and_(
        feedback_slots.c.rollout_id == rollout_versions.c.rollout_id,
        feedback_slots.c.tenant == rollout_versions.c.tenant,
        feedback_slots.c.kind == FeedbackKind.THUMB.value,
        feedback_slots.c.retracted.is_(False),
    )
    query = (
        select(feedback_slots.c.up, func.count().label("thumbs"))
        .select_from(rollout_versions)
        .join(feedback_slots, thumb)
        .where(by_version, rollout_versions.c.whole.is_(True))
        .group_by(feedback_slots.c.up)
    )
    counts = {row.up: row.thumbs for row in connection.execute(query)}
    thumbs = sum(counts.values())
    life = {"answers": float(answers), "thumbs": float(thumbs)}
    return life | ({"thumbs_up_rate": counts.get(True, 0) / thumbs} if thumbs else {})
