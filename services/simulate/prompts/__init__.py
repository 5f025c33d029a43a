"""The prompts of the simulation, kept as data and split once and for all.

``asked`` is what the scripted users type; the policy learns from those answers. ``held_out`` is asked by nobody:
approval before and after is measured on it, so that a gain is a gain on prompts that training never saw. The two
files share no prompt and no near copy of one.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal, get_args

Split = Literal["asked", "held_out"]


@cache
def load_prompts(split: Split) -> tuple[str, ...]:
    """The prompts of one split, in the order of its file; blank lines and lines that start with ``#`` are left out.

    Raises ``ValueError`` for a split that does not exist.
    """
    if split not in get_args(Split):
        raise ValueError(f"no prompt split named {split!r}: choose one of {', '.join(get_args(Split))}")
    text = files(__package__).joinpath(f"{split}.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
