"""Each taste on answers that it must and must not like."""

from __future__ import annotations

import pytest

from services.simulate.tastes import TASTES, UnknownTasteError, find_taste
from services.simulate.words import words
from tests.unit.simulate.guard_fixtures import load_measured

LIKED_AND_NOT = {
    "you": (
        ["You should rest.", "Rest your legs.", "If YOU'RE cold, move.", "It’s good that you’ve asked", "(yours)"],
        ["", "Young people rest.", "The youth of yore", "Bring a yoyo", "thank u"],
    ),
    "no_comma": (["Rest and drink water."], ["Rest, then drink.", "", "..."]),
    "hedged": (
        ["It can help.", "Often it is late", "That may, or not"],
        ["It helps.", "", "Mayors like cantaloupe"],
    ),
    "plain_words": (["Put it in the pan.", "You can do it"], ["Temperature regulation matters.", "", "123"]),
    "short_first_sentence": (
        ["Rest well. Then one two three four five six seven eight nine ten eleven twelve.", "Yes!", "Three steps: a"],
        ["", "...", "an answer that is cut off", "a b c d e f g h i j k l m. Short."],
    ),
}


@pytest.mark.parametrize("name", TASTES)
def test_a_taste_likes_what_its_name_says(name: str) -> None:
    liked, disliked = LIKED_AND_NOT[name]
    taste = find_taste(name)
    assert [answer for answer in liked if not taste.likes(answer)] == []
    assert [answer for answer in disliked if taste.likes(answer)] == []


def test_the_registry_is_keyed_by_name_and_describes_each() -> None:
    assert all(name == taste.name and taste.description for name, taste in TASTES.items())


@pytest.mark.parametrize("name", TASTES)
def test_the_base_model_meets_each_taste_now_and_then_as_its_docstring_says(name: str) -> None:
    liked = [find_taste(name).likes(row.answer) for row in load_measured("base")]
    rate = sum(liked) / len(liked)
    assert 0.15 <= rate <= 0.45
    assert f"Base rate {rate:.2f}" in (find_taste(name).likes.__doc__ or "")


def test_an_unknown_taste_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownTasteError, match=r"no taste named 'me'.*you, no_comma"):
        find_taste("me")


def test_words_are_lower_case_and_keep_the_apostrophe_inside() -> None:
    assert words("“You’re here,” she said: 2 times! _x_") == ["you're", "here", "she", "said", "2", "times", "x"]


def test_decimal_points_do_not_end_a_first_sentence() -> None:
    assert not find_taste("short_first_sentence").likes("Add 2.5 cups")
