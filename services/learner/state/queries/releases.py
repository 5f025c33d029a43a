"""Releases with what is known of them by now: who serves them, since when, and what users said of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from services.learner.ports import ReleaseRow
from services.learner.state.first_served import first_served_time
from services.learner.state.queries.release_lives import Life, read_lives
from services.learner.state.release_rows import release_from
from services.learner.state.training_sets import TrainingSets
from services.shared.domain.errors import InvalidInput, NotFound
from services.shared.domain.release import ReleaseKind
from services.shared.store.columns import from_micros, to_micros
from services.shared.store.database import Database
from services.shared.store.tables import acknowledgements, releases, uses

Lives = Callable[[], Mapping[str, Life]]
"""Of policies, by version. May raise Busy."""

DEFAULT_PAGE = 50
LARGEST_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """A release as shown. `metrics` holds the candidate's own measures, and those of its life: see `Life`."""

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

    def __init__(self, database: Database, *, lives: Lives | None = None) -> None:
        """`lives` may be as of a moment ago; None: they are counted at each call."""
        self._database = database
        self._lives = lives or (lambda: read_lives(database))

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
        lives = self._lives()
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            views = tuple(_view(connection, release_from(row), row.experiences, lives) for row in rows[:size])
        last = rows[size - 1] if len(rows) > size else None
        return ReleasePage(
            releases=views,
            next_page_token=f"{to_micros(last.commit_time)}.{last.version}" if last is not None else "",
        )

    def one(self, version: str) -> tuple[ReleaseView, tuple[str, ...]]:
        """A release and the rollouts that it was trained on, but for those past retention. Raises NotFound."""
        lives = self._lives()
        with self._database.read() as connection:
            row = connection.execute(select(releases).where(releases.c.version == version)).one_or_none()
            if row is None:
                raise NotFound(
                    f"there is no release {version!r}. `thumbloop policies list` shows all.", field="version"
                )
            release = release_from(row)
            return _view(connection, release, row.experiences, lives), tuple(sorted(_trained_on(connection, release)))


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


def _view(connection: Connection, release: ReleaseRow, experiences: int, lives: Mapping[str, Life]) -> ReleaseView:
    replicas = select(acknowledgements.c.replica_id).where(acknowledgements.c.version == release.version)
    policy = release.kind is ReleaseKind.POLICY
    return ReleaseView(
        release=release,
        experiences=experiences,
        first_served_time=_first_served(connection, release.version) if policy else None,
        acknowledged_by=tuple(sorted(connection.scalars(replicas))),
        metrics=dict(release.metrics) | (lives.get(release.version, Life()).metrics() if policy else {}),
    )


def _first_served(connection: Connection, version: str) -> datetime | None:
    time: datetime | None = connection.scalar(select(first_served_time()).where(releases.c.version == version))
    return time
