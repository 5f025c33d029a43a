from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generator.detokenizer import BROKEN, Detokenizer


def decode(token_ids: Sequence[int]) -> str:
    """A vocabulary of single bytes, the hardest case for characters."""
    return bytes(token_ids).decode(errors="replace")


def run(data: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(decode, stop)
    pieces = []
    for byte in data:
        pieces.append(detokenizer.push(byte))
        if detokenizer.stopped:
            break
    pieces.append(detokenizer.finish())
    return pieces, detokenizer


@given(st.text())
def test_the_pieces_are_the_text_and_none_ends_in_half_a_character(text: str) -> None:
    whole = text.replace(BROKEN, "")
    pieces, detokenizer = run(whole.encode())
    assert "".join(pieces) == detokenizer.text == whole
    assert not any(BROKEN in piece for piece in pieces)


@given(st.text(alphabet="aé👍", max_size=30), st.integers(min_value=0, max_value=3))
def test_half_a_character_at_the_end_is_dropped(text: str, cut: int) -> None:
    pieces, _ = run((text + "👍").encode()[: len(text.encode()) + cut])
    assert "".join(pieces) == text


@given(st.text(alphabet="abc", max_size=40), st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_ends_the_text_before_its_first_place(text: str, stops: list[str]) -> None:
    pieces, detokenizer = run(text.encode(), tuple(stops))
    given_out = "".join(pieces)
    found = [stop for stop in stops if stop in text]
    assert detokenizer.stopped == bool(found)
    assert text.startswith(given_out)
    assert not any(stop in given_out for stop in stops)
    if not found:
        assert given_out == text


def test_text_that_may_become_a_stop_string_is_held_until_it_is_known() -> None:
    detokenizer = Detokenizer(decode, ("END",))
    assert [detokenizer.push(byte) for byte in b"a EN"] == ["a", " ", "", ""]
    assert detokenizer.push(ord("x")) == "ENx"
    assert [detokenizer.push(byte) for byte in b"END"] == ["", "", ""]
    assert detokenizer.stopped and detokenizer.finish() == ""
    assert detokenizer.text == "a ENx"


@pytest.mark.parametrize("data", [b"\xff\xfea", b"a\xf0\x9f", b"\xc3"])
def test_bytes_that_are_no_text_harm_nothing(data: bytes) -> None:
    pieces, detokenizer = run(data)
    assert "".join(pieces) == detokenizer.text
