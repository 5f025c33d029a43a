"""`thumbloop settings`: every setting with its variable, its value in force, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from services.cli.plain import plain
from services.shared.settings import load_settings


def print_settings() -> None:
    """A table, a setting a row."""
    table = Table(title="Settings in force")
    for column in ("variable", "value", "meaning"):
        table.add_column(column, overflow="fold")
    for variable, value, meaning in rows(load_settings(), "THUMBLOOP_"):
        table.add_row(variable, plain(value), plain(meaning))
    Console().print(table)


def rows(section: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    """(variable, value, meaning) of a section and all below it."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from rows(value, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", repr(value), field.description or ""
