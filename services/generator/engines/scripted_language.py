"""What the scripted engine says: a small vocabulary and, for each version, a true distribution over it.

Token ids below 256 are bytes and 256 ends a response (`services.shared.domain.scripted_language`); the words of this
vocabulary follow. The next token's distribution is a categorical over all V = len(WORDS) + 1 of them, fixed by
(version, previous token), so whoever knows a rollout's ids and spans can compute every log-prob again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from random import Random
from typing import Final

from services.shared.domain.rollout import ChatMessage, Sampling
from services.shared.domain.scripted_language import END_TOKEN
from services.shared.domain.scripted_language import decode as decode_bytes
from services.shared.domain.scripted_language import encode as encode_bytes

_TEXT: Final = """
you your I we they it is are was can will may like know think see say make take give the a this that my our one two
good warm bright small old new day sea rice star dog song road rain and or but so if then , . ! ? yes no here there
today often never always naïve ☕ 👍
"""
WORDS: Final = ("", *_TEXT.split())
"""A word carries the space before it; the first is the empty word, so that some tokens have no text."""

FIRST_WORD: Final = END_TOKEN + 1
TOKENS: Final = (END_TOKEN, *range(FIRST_WORD, FIRST_WORD + len(WORDS)))
_END_LOGIT: Final = -1.5


def token_text(token_id: int) -> str:
    """The text of a vocabulary token."""
    word = WORDS[token_id - FIRST_WORD]
    return word if not word or word in ",.!?" else f" {word}"


class ScriptedTokenizer:
    """Prompts are bytes, responses are words."""

    tokenizer_digest = hashlib.sha256(repr((WORDS, END_TOKEN)).encode()).hexdigest()
    template_digest = hashlib.sha256(b"{role}: {content}\\n").hexdigest()
    control_texts: tuple[str, ...] = ()

    def render(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """A line a turn."""
        return encode_bytes("".join(f"{turn.role}: {turn.content}\n" for turn in messages))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Bytes and words; the end token and unknown ids have no text."""
        pieces: list[str] = []
        for token in token_ids:
            if token < END_TOKEN:
                pieces.append(decode_bytes((token,)))
            elif FIRST_WORD <= token < FIRST_WORD + len(WORDS):
                pieces.append(token_text(token))
        return "".join(pieces)


@lru_cache(maxsize=4096)
def logits_V(version: str, previous_token: int) -> tuple[float, ...]:
    """Raw logits over `TOKENS`. A version's bias is the same everywhere, so versions differ in what they like."""
    context = Random(f"context {previous_token}")
    bias = Random(f"version {version}")
    values = [context.gauss(0.0, 1.0) + bias.gauss(0.0, 1.0) for _ in TOKENS]
    values[0] += _END_LOGIT
    return tuple(values)


@lru_cache(maxsize=16384)
def log_probs_V(version: str, previous_token: int, temperature: float, top_k: int, top_p: float) -> tuple[float, ...]:
    """Log-probs over `TOKENS` after temperature, top-k and top-p, as `services.generator.engines.interface` says.

    Temperature 0 takes the likeliest token. What the filters remove has log-prob -inf.
    """
    logits = logits_V(version, previous_token)
    scaled = [value / temperature for value in logits] if temperature > 0 else list(logits)
    order = sorted(range(len(scaled)), key=lambda index: (-scaled[index], index))
    kept = order[: (1 if temperature == 0 else top_k or len(order))]
    kept = _nucleus(scaled, kept, top_p)
    total = _log_sum(scaled[index] for index in kept)
    result = [-math.inf] * len(scaled)
    for index in kept:
        result[index] = min(0.0, scaled[index] - total)
    return tuple(result)


def raw_log_prob(version: str, previous_token: int, token_id: int) -> float:
    """Of the raw distribution at temperature 1."""
    return log_probs_V(version, previous_token, 1.0, 0, 1.0)[TOKENS.index(token_id)]


def draw(version: str, previous_token: int, sampling: Sampling, random: Random) -> tuple[int, float]:
    """One token and the log-prob of the distribution that it was drawn from."""
    log_probs = log_probs_V(version, previous_token, sampling.temperature, sampling.top_k, sampling.top_p)
    index = random.choices(range(len(TOKENS)), weights=[math.exp(value) for value in log_probs])[0]
    return TOKENS[index], log_probs[index]


def _nucleus(scaled: Sequence[float], order: list[int], top_p: float) -> list[int]:
    """The smallest head of `order` that holds at least `top_p` of its mass (Holtzman et al., arXiv:1904.09751)."""
    if top_p >= 1.0:
        return order
    total = _log_sum(scaled[index] for index in order)
    mass = 0.0
    for count, index in enumerate(order, start=1):
        mass += math.exp(scaled[index] - total)
        if mass >= top_p:
            return order[:count]
    return order


def _log_sum(values: Iterable[float]) -> float:
    listed = list(values)
    top = max(listed)
    return top + math.log(sum(math.exp(value - top) for value in listed))
