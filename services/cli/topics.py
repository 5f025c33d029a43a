"""`thumbloop topics`: the topic pages as a table, and their creation."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from services.cli.plain import plain
from services.shared.bus import open_bus
from services.shared.contracts.topics import TopicPage, load_topic_pages
from services.shared.settings import load_settings

MILLISECONDS_A_DAY = 86_400_000


def print_topics() -> None:
    """A table, a topic a row."""
    table = Table(title="Topics")
    for column in ("topic", "key", "message", "partitions", "kept", "written by", "read by"):
        table.add_column(column, overflow="fold")
    for page in load_topic_pages().values():
        table.add_row(*map(plain, topic_cells(page)))
    Console().print(table)


def topic_cells(page: TopicPage) -> tuple[str, ...]:
    """What a person wants to see of a topic."""
    return (
        page.name,
        page.key,
        page.message.rsplit(".", 1)[-1],
        str(page.partitions),
        retention(page.retention_ms),
        ", ".join(page.producers),
        ", ".join(page.consumers),
    )


def retention(milliseconds: int) -> str:
    """In days, or for ever."""
    return "for ever" if milliseconds < 0 else f"{milliseconds / MILLISECONDS_A_DAY:g} days"


def create_topics() -> None:
    """Creates what is missing. Raises Unavailable."""
    bus = open_bus(load_settings().bus)
    try:
        bus.ensure_topics(load_topic_pages().values())
    finally:
        bus.close()
