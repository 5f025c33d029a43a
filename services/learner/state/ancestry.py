"""How stale a version is: updates back along the ancestry of releases.

The learner's version is at distance 0, its parent at 1, and so on. A version that is not among its ancestors (it was
rolled back, or this store does not know it) has no distance: its rollouts count as stale.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from services.shared.store.tables import releases


def distances(connection: Connection, version: str, *, most: int) -> dict[str, int]:
    """Versions at a distance of at most `most` from `version`, with that distance; `most` + 1 look-ups."""
    found: dict[str, int] = {}
    current: str | None = version
    for distance in range(most + 1):
        if not current or current in found:
            break
        found[current] = distance
        current = connection.scalar(select(releases.c.parent_version).where(releases.c.version == current))
    return found


def lineage(connection: Connection, version: str) -> list[str]:
    """The version and all its ancestors, youngest first."""
    parents: dict[str, str] = {
        row.version: row.parent_version
        for row in connection.execute(select(releases.c.version, releases.c.parent_version))
    }
    line: dict[str, None] = {}
    current = version
    while current and current not in line:
        line[current] = None
        current = parents.get(current, "")
    return list(line)
