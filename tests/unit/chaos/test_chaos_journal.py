"""A journal read back says what its client heard; opinions keep the rules that the verdict relies on."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pytest

from services.shared.domain.feedback import FeedbackKind
from tests.benchmarks.chaos.journal import ClientJournal, enter, read_journals
from tests.benchmarks.chaos.opinions import Opinions
from tests.benchmarks.chaos.statements import Answer, Ledger, Statement

KINDS = tuple(str(kind) for kind in FeedbackKind)


def answer(name: str) -> Answer:
    return Answer(
        rollout_id=name, prompt_id="p", token=f"token-{name}", kinds=KINDS, complete=True, asked_at=1.0, ended_at=2.0
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    kept = Ledger()
    journal = ClientJournal(tmp_path / "client.jsonl", kept, lambda: 5.0)
    statement = Statement(feedback_id="f", rollout_id="r", token="t", kind="rating", value=4, revision=None)
    journal.answer(answer("r"))
    journal.chat_failed(cut=True, why="reset")
    journal.chat_failed(cut=False, why="503")
    journal.says(statement)
    journal.uncertain("f", "no answer")
    journal.acknowledged("f", state="spooled", revision=7)
    journal.says(Statement(feedback_id="g", rollout_id="r", token="t", kind="thumb", value="up", revision=1))
    journal.refused("g", "400")
    journal.close()
    read = read_journals([tmp_path / "client.jsonl"])
    assert read == kept
    assert [told.statement for told in read.acknowledged] == [statement]
    assert read.spooled() == 1
    assert read.statements["f"].uncertain == read.statements["g"].refused == 1
    assert (read.cut_chats, read.refused_chats) == (1, 1)


def test_a_line_of_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="gossip"):
        enter(Ledger(), {"event": "gossip"})


def test_clients_say_everything_that_can_be_said() -> None:
    ticks = count(1_000_000)
    opinions = Opinions(random.Random(1), milliseconds=lambda: next(ticks))
    slots = [slot for _ in range(300) for slot in opinions.on([answer("a"), answer("b")])]
    said = [statement for slot in slots for statement in slot]
    assert {statement.kind for statement in said} == set(KINDS)
    assert any(statement.retracted for statement in said)
    assert any(statement.revision is None for statement in said)
    assert any(len(slot) > 1 and (slot[1].revision or 0) < (slot[0].revision or 0) for slot in slots)
    assert len({statement.feedback_id for statement in said}) == len(said)
    assert all(len({statement.slot for statement in slot}) == 1 for slot in slots)
    comparisons = [one for one in said if one.kind == "comparison" and not one.retracted]
    assert all(one.rejected_token != one.token for one in comparisons)
    assert len({one.digest for one in said if not one.retracted}) > 10
