"""Topics and their pages.

Every topic has a *page* (`protos/topics/NAME.yaml`): who writes it, who reads it, how it is cut and kept, and an
example event. Brokers are set up from the pages, and docs and tests read them, so a page that lies is found out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from services.shared.domain.errors import Misconfigured

ROLLOUTS = "rollouts"
FEEDBACK = "feedback"
SCORES = "scores"
POLICIES = "policies"
CONTROLS = "controls"

KEPT_FOR_EVER = -1
"""`retention_ms` of a topic that is never shortened."""

DEAD_LETTER_SUFFIX = "-dlq"


@dataclass(frozen=True, kw_only=True)
class TopicPage:
    """What is known of a topic. No topic is ever compacted: every event counts."""

    name: str
    description: str
    key: str
    """What stands in a record's key; records of one key keep their order."""
    message: str
    """Full name of the protobuf message."""
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: int
    retention_ms: int
    """Milliseconds; `KEPT_FOR_EVER` for no limit."""
    max_message_bytes: int
    dead_letter: bool
    """Whether what cannot be read goes to `dead_letter_topic(name)`."""
    example: str
    """One event in protobuf's JSON form."""


def dead_letter_topic(name: str) -> str:
    """Where unreadable events of a topic go."""
    return name + DEAD_LETTER_SUFFIX


def load_topic_pages() -> dict[str, TopicPage]:
    """All pages by topic name. Raises Misconfigured for a page that does not read."""
    return dict(_own_pages())


@cache
def _own_pages() -> dict[str, TopicPage]:
    return read_topic_pages(_folder())


def _folder() -> Path:
    """Beside this file in an installed package, else below `protos` in a checkout."""
    here = Path(__file__).resolve()
    installed = here.parent / "topics"
    return installed if installed.is_dir() else here.parents[3] / "protos" / "topics"


def read_topic_pages(folder: Path) -> dict[str, TopicPage]:
    """The pages of a folder by topic name. Raises Misconfigured for a page that does not read."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise Misconfigured(f"There are no topic pages in {folder}. Install the package again, or restore that folder.")
    pages = [_read_page(path) for path in paths]
    return {page.name: page for page in pages}


def _read_page(path: Path) -> TopicPage:
    """Reads one page and holds it to the shape of `TopicPage`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Misconfigured(f"The topic page {path} does not read: {error}") from error
    expected = {field.name for field in fields(TopicPage)}
    if not isinstance(content, dict) or set(content) != expected:
        found = set(content) if isinstance(content, dict) else set()
        raise Misconfigured(
            f"The topic page {path} needs exactly these entries: {', '.join(sorted(expected))}. "
            f"Missing: {sorted(expected - found)}; not known: {sorted(map(str, found - expected))}."
        )
    return _page(path, content)


def _page(path: Path, content: dict[str, Any]) -> TopicPage:
    """Checks the values of a page."""
    try:
        json.loads(content["example"])
        page = TopicPage(
            **{**content, "producers": tuple(content["producers"]), "consumers": tuple(content["consumers"])}
        )
        well_formed = (
            page.name == path.stem
            and page.partitions >= 1
            and (page.retention_ms > 0 or page.retention_ms == KEPT_FOR_EVER)
            and page.max_message_bytes >= 1024
        )
    except (TypeError, ValueError) as error:
        raise Misconfigured(f"The topic page {path} has a value of the wrong type: {error}") from error
    if not well_formed:
        raise Misconfigured(
            f"The topic page {path}: `name` must be the file's, `partitions` at least 1, `retention_ms` positive or "
            f"{KEPT_FOR_EVER} (for ever), `max_message_bytes` at least 1024."
        )
    return page
