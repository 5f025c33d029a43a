"""The four services as real processes on a real broker, with scripted engine, scorer and trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.embedded.plan import EmbeddedPlan, Overrides, choose_ports
from services.embedded.supervisor import Supervisor

SCRIPTED: Overrides = {
    "generator": {"engine": "scripted", "scripted_token_interval_s": 0.01, "resend_after_s": 3.0},
    "gateway": {"spool": {"resend_after_s": 3.0}},
    "reward": {"scorer": "scripted"},
    "learner": {
        "trainer": "scripted",
        "unrated_wait_s": 0.5,
        "reward_min_new_thumbs": 1,
        "reward_min_auroc_low95": 0.0,
        "reward_min_thumbs_of_each": 0,
        "lease_ttl_s": 2.0,
        "ppo": {"rollouts_per_update": 16},
    },
}


@pytest.fixture
def scripted_loop(broker_choice: str, tmp_path: Path) -> Iterator[Supervisor]:
    """Ready when the test begins; gone, with all its processes, when it ends."""
    plan = EmbeddedPlan(
        data_dir=tmp_path, ports=choose_ports(prefer_defaults=False), broker=broker_choice, overrides=SCRIPTED
    )
    supervisor = Supervisor(plan)
    try:
        supervisor.start()
        yield supervisor
    finally:
        supervisor.stop()
