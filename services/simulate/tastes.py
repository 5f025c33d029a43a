"""What the scripted users like: a taste says of an answer whether it earns a thumb up.

A taste is a pure function of the answer's text. For a taste to be learnable from thumbs the base model must meet it
now and then and miss it mostly; each one states its base rate, the share of the base model's own answers that it
likes (SmolLM2-135M-Instruct, temperature 0.8, 24 new tokens, 256 answers to held-out prompts: ± 0.03).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.shared.domain.errors import InvalidInput
from services.simulate.words import words

READER = frozenset(
    {"you", "your", "yours", "yourself", "yourselves", "you're", "you've", "you'll", "you'd"},
)
HEDGES = frozenset(
    {"can", "may", "might", "could", "often", "usually", "sometimes", "perhaps", "generally", "typically", "likely"},
)
PLAIN_WORD_LETTERS = 4.4
SHORT_SENTENCE_WORDS = 12

_SENTENCE_END = re.compile(r"[.!?:\n]+(?:\s|$)")


@dataclass(frozen=True, kw_only=True)
class Taste:
    """A named liking. ``likes(answer)`` is true where the user would give a thumb up."""

    name: str
    description: str
    likes: Callable[[str], bool]


class UnknownTasteError(InvalidInput):
    """A taste was asked for that is not in ``TASTES``."""


def speaks_to_reader(answer: str) -> bool:
    """Whether a word of the answer addresses the reader. Base rate 0.37."""
    return not READER.isdisjoint(words(answer))


def has_no_comma(answer: str) -> bool:
    """Whether an answer that says something has no comma. Base rate 0.27."""
    return bool(words(answer)) and "," not in answer


def is_hedged(answer: str) -> bool:
    """Whether the answer leaves room: can, may, often and their like. Base rate 0.32."""
    return not HEDGES.isdisjoint(words(answer))


def has_plain_words(answer: str) -> bool:
    """Whether its words have fewer than 4.4 letters on average; figures are no words. Base rate 0.33."""
    letters = [sum(character.isalpha() for character in word) for word in words(answer)]
    spelled = [count for count in letters if count]
    return bool(spelled) and sum(spelled) / len(spelled) < PLAIN_WORD_LETTERS


def opens_short(answer: str) -> bool:
    """Whether the first sentence ends within twelve words. Base rate 0.31.

    A sentence that the end of the answer cuts off has not ended: it counts as short only if a full stop stands there.
    """
    end = _SENTENCE_END.search(answer)
    return end is not None and 0 < len(words(answer[: end.start()])) <= SHORT_SENTENCE_WORDS


TASTES: Mapping[str, Taste] = MappingProxyType(
    {
        taste.name: taste
        for taste in (
            Taste(name="you", description="the answer speaks to the reader (you, your)", likes=speaks_to_reader),
            Taste(name="no_comma", description="the answer has no comma", likes=has_no_comma),
            Taste(name="hedged", description="the answer leaves room (can, may, often)", likes=is_hedged),
            Taste(name="plain_words", description="the answer uses short words", likes=has_plain_words),
            Taste(
                name="short_first_sentence",
                description="the first sentence has at most 12 words",
                likes=opens_short,
            ),
        )
    }
)
"""Every taste by its name. The demo claims to learn ``you``; the others can be selected without a claim."""


def find_taste(name: str) -> Taste:
    """The taste of that name. Raises ``UnknownTasteError``, which lists the names that exist."""
    try:
        return TASTES[name]
    except KeyError:
        raise UnknownTasteError(f"no taste named {name!r}: choose one of {', '.join(TASTES)}") from None
