from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from services.generator.engines.scripted_language import TOKENS, WORDS, ScriptedTokenizer, draw, log_probs_V
from services.shared.domain.rollout import ChatMessage, Role, Sampling


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.0, 0, 0.5), (0.0, 0, 1.0)]
)
def test_probabilities_sum_to_one(temperature: float, top_k: int, top_p: float) -> None:
    log_probs = log_probs_V("v1", 300, temperature, top_k, top_p)
    assert sum(map(math.exp, log_probs)) == pytest.approx(1.0)
    if top_k:
        assert sum(value > -math.inf for value in log_probs) == top_k


def test_versions_like_different_words() -> None:
    favourites = {
        version: Counter(draw(version, 300, Sampling(temperature=1, max_tokens=1), Random(i))[0] for i in range(500))
        for version in ("v1", "v2")
    }
    assert favourites["v1"].most_common(1) != favourites["v2"].most_common(1)


def test_words_have_ids_of_their_own_and_text_comes_back() -> None:
    assert len(set(WORDS)) == len(WORDS) and len(set(TOKENS)) == len(TOKENS)
    tokenizer = ScriptedTokenizer()
    text = tokenizer.decode(TOKENS)
    assert text.split()[:3] == ["you", "your", "I"]
    assert tokenizer.render([ChatMessage(role=Role.USER, content="Hi")]) == tuple(b"user: Hi\n")


def test_the_scripted_engine_needs_no_torch() -> None:
    code = (
        "import sys, services.generator.main, services.generator.engines.scripted, "
        "services.generator.engines.scripted_language; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
