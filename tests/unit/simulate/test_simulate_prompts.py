"""The prompts: enough of them, distinct, and none asked that is held out."""

from __future__ import annotations

import itertools
import re
from typing import cast

import pytest

from services.simulate.prompts import Split, load_prompts

# Words that frame a question rather than say what it is about.
FRAME_WORDS = """
a an the of to in on at for from with and or is are was do does did i my me you your it its that this who what when
where which why how can could should would will give tell some good best way make get difference between explain write
suggest using without
"""
FRAME = frozenset(FRAME_WORDS.split())


def _normal(prompt: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9']+", prompt.lower()))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def _subject(prompt: str) -> frozenset[str]:
    return frozenset(_normal(prompt)) - FRAME


def test_there_are_enough_and_all_are_distinct() -> None:
    asked, held_out = load_prompts("asked"), load_prompts("held_out")
    assert len(asked) >= 400
    assert len(held_out) == 128
    assert len({_normal(prompt) for prompt in asked + held_out}) == len(asked) + len(held_out)


def test_all_are_short_questions_or_requests() -> None:
    for prompt in load_prompts("asked") + load_prompts("held_out"):
        assert 5 <= len(prompt.split()) <= 16, prompt
        assert prompt[0].isupper() and prompt[-1] in ".?", prompt


def test_no_held_out_prompt_has_a_near_copy_among_the_asked() -> None:
    for held_out, asked in itertools.product(load_prompts("held_out"), load_prompts("asked")):
        every_word = _jaccard(frozenset(_normal(held_out)), frozenset(_normal(asked)))
        assert every_word <= 0.7, (held_out, asked)
        assert _jaccard(_subject(held_out), _subject(asked)) <= 0.5, (held_out, asked)


def test_an_unknown_split_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match="asked, held_out"):
        load_prompts(cast(Split, "validation"))
