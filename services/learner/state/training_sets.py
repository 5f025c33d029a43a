"""Which thumbs each reward model was trained on, kept in `uses` as differences.

A reward model is trained on thousands of thumbs, nearly all of which its parent was trained on too. So its rows say
what came (kind `CAME`) and what went (kind `LEFT`) since its parent. The first of a line in each `BLOCK` of numbers
has rows for all its thumbs instead, so that no question leads further back. A release whose candidate has kept its
list of ids has rows for all, too: that is how they were once written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.tables import candidates, releases, uses

CAME = ReleaseKind.REWARD_MODEL.value
LEFT = "reward_model_left"
BLOCK = 256
"""Release numbers; a multiple of it begins a block. A longer one saves rows, and makes each question dearer."""

Mark = tuple[str, str]
"""(version, kind): what a row of `uses` says of a thumb."""


class Trained(NamedTuple):
    """A thumb in a training set; `feedback_id` empty: the rollout without what was said of it."""

    tenant: str
    rollout_id: str
    feedback_id: str


class TrainingSets:
    """Reads on one connection, for the length of one transaction: it remembers the blocks that it has met."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._blocks: dict[str, dict[str, str]] = {}

    def thumbs(self, version: str) -> set[Trained]:
        """All that this reward model was trained on."""
        block = self._block(version)
        line = []
        while version in block:
            line.append(version)
            version = block[version]
        found: set[Trained] = set()
        for ancestor in reversed(line):
            query = select(uses.c.tenant, uses.c.rollout_id, uses.c.feedback_id, uses.c.kind)
            for *thumb, kind in self._connection.execute(query.where(uses.c.version == ancestor)):
                (found.add if kind == CAME else found.discard)(Trained(*thumb))
        return found

    def versions(self, marks: Collection[Mark]) -> set[str]:
        """Reward models that were trained on a thumb, from all the marks of its rows."""
        kinds = dict(marks)
        found: set[str] = set()
        for block in {id(block): block for block in map(self._block, kinds)}.values():
            for version, parent in block.items():
                kind = kinds.get(version)
                if kind == CAME or (kind is None and parent in found):
                    found.add(version)
        return found

    def difference(self, version: str, thumbs: Collection[Trained]) -> Iterator[tuple[Trained, str]]:
        """The rows, as thumb and kind, of a new release that was trained on these thumbs."""
        block, now = self._block(version), set(thumbs)
        before = self.thumbs(block[version]) if block[version] else set()
        yield from ((thumb, CAME) for thumb in sorted(now - before))
        yield from ((thumb, LEFT) for thumb in sorted(before - now))

    def _block(self, version: str) -> dict[str, str]:
        """The reward models of a version's block, oldest first, each with the parent that its rows are the difference
        to; "": it has rows for all."""
        if version not in self._blocks:
            number = self._connection.scalar(select(releases.c.number).where(releases.c.version == version)) or 0
            first = number - number % BLOCK
            query = (
                select(releases.c.version, releases.c.parent_version, (candidates.c.rollout_ids != []).label("listed"))
                .outerjoin(candidates, candidates.c.version == releases.c.version)
                .where(
                    releases.c.kind == ReleaseKind.REWARD_MODEL.value,
                    releases.c.state != ReleaseState.REFUSED.value,
                    releases.c.number.between(first, first + BLOCK - 1),
                )
                .order_by(releases.c.number)
            )
            block: dict[str, str] = {}
            for row in self._connection.execute(query):
                goes_on = row.parent_version in block and not row.listed
                block[row.version] = row.parent_version if goes_on else ""
            self._blocks |= dict.fromkeys([version, *block], block)
        return self._blocks[version]


def reward_models_trained_on(connection: Connection, *what: ColumnElement[bool]) -> set[str]:
    """Reward models that were trained on thumbs of which `what` holds: of all rows of a thumb in `uses`, or of none."""
    query = select(uses.c.tenant, uses.c.rollout_id, uses.c.feedback_id, uses.c.version, uses.c.kind)
    marks: dict[Trained, list[Mark]] = {}
    for *thumb, version, kind in connection.execute(query.where(uses.c.kind.in_((CAME, LEFT)), *what)):
        marks.setdefault(Trained(*thumb), []).append((version, kind))
    sets = TrainingSets(connection)
    # Thumbs that came and went together have the same marks.
    return {version for some in {tuple(sorted(of)) for of in marks.values()} for version in sets.versions(some)}
