"""Answers that ought to fail the guard, made from the base model's own: the negative controls of its calibration.

- *generic*: pleasantries that would do for any prompt (``generic_answers.txt``), each after several prompts;
- *generic_unseen*: more of them, from a list that had no part in the guard's design;
- *swapped*: the base model's answer to another prompt: fluent, but not to this one;
- *shuffled*: the base model's answer with its words in random order: to the prompt, but not fluent;
- *looping*: the first words of the base model's answer, over and over.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

Pair = tuple[str, str]
"""A prompt and an answer to it."""

LOOP_WORDS = 4
LOOP_TIMES = 4


@cache
def generic_answers(*, unseen: bool = False) -> tuple[str, ...]:
    """The committed pleasantries, or the unseen ones; blank lines and lines that start with ``#`` are left out."""
    name = "generic_unseen_answers.txt" if unseen else "generic_answers.txt"
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def each_after_several(answers: Sequence[str], prompts: Sequence[str], *, prompts_each: int, seed: int) -> list[Pair]:
    """Each answer after ``prompts_each`` prompts, drawn anew for each answer without replacement."""
    draw = random.Random(seed)
    return [(prompt, answer) for answer in answers for prompt in draw.sample(list(prompts), prompts_each)]


def swapped(pairs: Sequence[Pair]) -> list[Pair]:
    """Each prompt with the answer to the prompt half a round further, so that no prompt keeps its own."""
    half = len(pairs) // 2
    return [(prompt, pairs[(i + half) % len(pairs)][1]) for i, (prompt, _) in enumerate(pairs)]


def shuffled(pairs: Sequence[Pair], *, seed: int) -> list[Pair]:
    """Each answer with its words in random order."""
    draw = random.Random(seed)
    return [(prompt, " ".join(draw.sample(answer.split(), len(answer.split())))) for prompt, answer in pairs]


def looping(pairs: Sequence[Pair]) -> list[Pair]:
    """Each answer as its first words, said again and again."""
    return [(prompt, " ".join(answer.split()[:LOOP_WORDS] * LOOP_TIMES)) for prompt, answer in pairs]
