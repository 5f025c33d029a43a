"""What a broker lost and what was sent again is counted from logs, over all lives of a process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.chaos.logs import Repairs, read_repairs


def test_events_are_counted_and_torn_lines_passed_by(tmp_path: Path) -> None:
    gateway, generator, learner = (tmp_path / f"{room}.log" for room in ("gateway", "generator", "learner"))
    again = json.dumps({"event": "feedback_sent_again", "rollout_id": "r1"})
    gateway.write_text(f"{again}\n{again[:30]}\nready\n{again}\n", encoding="utf-8")
    rollouts = [
        {"event": "rollouts_sent_again", "rollouts": 3, "the_store_lacks": "rollout"},
        {"event": "rollouts_not_confirmed", "cause": "rollouts_sent_again"},
        {"event": "rollouts_sent_again", "rollouts": 2, "the_store_lacks": "score"},
    ]
    generator.write_text("".join(f"{json.dumps(line)}\n" for line in rollouts), encoding="utf-8")
    learner.write_text(f"{json.dumps({'event': 'partition_read_again'})}\n", encoding="utf-8")
    assert read_repairs([gateway, generator, learner]) == Repairs(lost_tails=1, sent_again=7)
