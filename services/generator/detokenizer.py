"""Token ids to text while they arrive: nothing that is given is taken back, and no character comes in halves.

A token of a byte-level vocabulary may be part of a character, so text is held until its last character is whole. Text
that may be the beginning of a stop string is held until it is known whether it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

BROKEN: Final = "�"
Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """Of one response. `text` is all that was given out."""

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        # Tokens [_context, _given) are known as text; they are decoded again with what follows, because a token's text
        # may depend on the ones before it (spaces, joined bytes).
        self._context = 0
        self._given = 0
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Text that has become final with this token. Sets `stopped` where a stop string is complete."""
        self._ids.append(token_id)
        known = self._decode(self._ids[self._context : self._given])
        whole = self._decode(self._ids[self._context :])
        if len(whole) <= len(known) or whole.endswith(BROKEN):
            return ""
        self._context, self._given = self._given, len(self._ids)
        return self._release(whole[len(known) :], last=False)

    def finish(self) -> str:
        """What was held, at the response's end; half a character is dropped."""
        known = self._decode(self._ids[self._context : self._given])
        whole = self._decode(self._ids[self._context :])
        return self._release(whole[len(known) :].rstrip(BROKEN), last=True)

    def _release(self, new: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            given, self._held = text[: min(found)], ""
        else:
            keep = 0 if last else _stop_beginning(text, self._stop)
            given, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += given
        return given


def _stop_beginning(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop string begins with."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
