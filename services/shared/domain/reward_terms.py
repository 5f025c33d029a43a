"""Named addends of a reward that follow from the response alone, in thumb units; no model is asked.

What is invalid is scored explicitly and never left out: a policy whose broken answers are dropped learns to break them.
The reward room adds these terms to its scores, the trainer to what it has rescored from features.
"""

from __future__ import annotations

VALIDITY = "validity"
INVALID = -1.0
"""As bad as a sure thumb down, on top of whatever else is said of the response."""

Terms = tuple[tuple[str, float], ...]


def response_terms(response_text: str) -> Terms:
    """`validity` -1 for a response without a visible character; nothing for any other."""
    return () if response_text.strip() else ((VALIDITY, INVALID),)


def with_response_terms(terms: Terms, response_text: str) -> Terms:
    """`terms` with those of the response put in place of any it already holds by the same names."""
    return (*(term for term in terms if term[0] != VALIDITY), *response_terms(response_text))


def total(terms: Terms) -> float:
    """The reward: the sum of its terms."""
    return sum(value for _, value in terms)
