"""Chaos, the short form: SIGKILL at random under load loses nothing, counts nothing twice, trains nothing twice.

Plan: the scripted loop runs on the broker of `--broker` (Apache Kafka behind a proxy that cuts, slows and resets);
clients chat and say what they think in all kinds, with journals of their own. Eight kills by seeded dice hit gateway,
generator, reward, learner and broker, each at least once; between them the loop must go on. Then the load stops, the
system settles, and clients' journals are compared, id by id, with the store. A broker that is killed stays dead until
the gateway's disk took feedback. With the embedded broker, which has no proxy before it, it is the gRPC links between
rooms that are cut, slowed and reset.
Pass: of the feedback that was acknowledged none is lost, none counts twice, all is in a final state, every orphan has a
kill that explains it; no experience was trained twice; some of the feedback was spooled; every gRPC link was used;
every room drained.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.chaos.blows import kills_of
from tests.benchmarks.chaos.killer import Pace, Strike
from tests.benchmarks.chaos.links import GRPC_LINKS
from tests.benchmarks.chaos.load import LoadSettings
from tests.benchmarks.chaos.run import ChaosRun, RunSettings
from tests.benchmarks.chaos.strikes import plan_strikes
from tests.benchmarks.chaos.world import BROKER, VICTIMS, WorldSettings
from tests.support.brokers import local_kind

KILLS = 8
SEED = 4


@pytest.mark.kafka
@pytest.mark.timeout(1200)
async def test_nothing_is_lost_or_counted_twice_however_services_die(broker_choice: str, tmp_path: Path) -> None:
    broker = local_kind(broker_choice)
    links = GRPC_LINKS if broker == "embedded" else ()
    settings = RunSettings(
        seed=SEED,
        strikes=[until_spooled(strike) for strike in plan_strikes(KILLS, SEED)],
        world=WorldSettings(broker=broker, orphan_after_s=4.0, grpc_proxies=bool(links)),
        load=LoadSettings(clients=4, seed=SEED, patience_s=20.0),
        pace=Pace(release_every=4, stall_s=180.0),
        calm_s=(2.0, 4.0),
        releases=2,
        within_s=600.0,
        settle_s=120.0,
    )
    outcome = await ChaosRun(settings, tmp_path).run()
    assert outcome.violations == []
    assert set(kills_of(outcome.blows)) == set(VICTIMS)
    assert sum(kills_of(outcome.blows).values()) == KILLS
    assert len(outcome.ledger.acknowledged) > 50, "too little load to say anything"
    assert outcome.ledger.spooled() > 0
    assert all(outcome.carried[link.name] > 0 for link in links), "a room went past its proxy"
    assert set(outcome.exit_codes.values()) == {0}


def until_spooled(strike: Strike) -> Strike:
    """The same; a broker is away for as long as it takes until feedback goes to the gateway's disk."""
    return replace(strike, until_spooled=True, hasty=False) if strike.victim == BROKER else strike
