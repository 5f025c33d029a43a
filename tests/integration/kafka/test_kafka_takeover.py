"""Two ingest processes share the log; one is killed under load.

Plan: two processes (role `ingest` alone) on one SQLite store; when each holds half of the partitions, a steady load
begins, and one process group gets SIGKILL.
Pass: the other holds all partitions within a lease and two rounds, everything acknowledged is in the store, its
offsets are the log's ends, and the dump is that of the same events stored by hand (nothing lost, nothing twice).
Neither process loaded torch or took the lead; the survivor answers over gRPC, and drains.
"""

from __future__ import annotations

from pathlib import Path

import grpc
from sqlalchemy import select
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.learner.state.dump import canonical_dump
from services.learner.state.fencing import LEADER
from services.shared.access.service_credential import service_credential
from services.shared.contracts.topics import load_topic_pages
from services.shared.rpc import open_sync_channel
from services.shared.settings import Settings
from services.shared.settings.model import BusSettings, DeploymentSettings
from services.shared.store.tables import leases
from tests.support.brokers import bus_with_topics
from tests.support.ingest_load import holders, missing, read_from, steady_load
from tests.support.ingest_process import LEASE_TTL_S, IngestProcess, ingest_process
from tests.support.learner_store import ManualClock, ingest_facts, open_test_database
from tests.support.patience import eventually


def status_of(folder: Path, ingest: IngestProcess) -> learner_pb2.GetStatusResponse:
    """What its gRPC says, to a caller with the deployment's credential."""
    settings = Settings(deployment=DeploymentSettings(data_dir=folder))
    with open_sync_channel(f"127.0.0.1:{ingest.port}", credential=service_credential(settings)) as channel:
        assert isinstance(channel, grpc.Channel)
        return learner_pb2_grpc.LearnerServiceStub(channel).GetStatus(learner_pb2.GetStatusRequest(), timeout=20)


def test_one_takes_over_what_the_other_had(plain: BusSettings, tmp_path: Path) -> None:
    bus = bus_with_topics(plain, load_topic_pages().values())
    database = open_test_database(tmp_path)
    with ingest_process(tmp_path, plain, "one", ready=False) as one, ingest_process(tmp_path, plain, "two") as two:
        one.wait_until_ready()
        eventually(lambda: holders(database) == {"one": 6, "two": 6}, within_s=30, what="fair shares")
        with steady_load(bus) as load:
            eventually(lambda: len(load.acknowledged) > 60, within_s=30)
            before = read_from(database)
            one.process.kill_group()
            eventually(lambda: holders(database) == {"two": 12}, within_s=5 * LEASE_TTL_S + 10, what="takeover")
            eventually(lambda: all(read_from(database)[place] > before[place] for place in before), within_s=30)
        assert load.refused == 0
        eventually(lambda: not missing(database, load), within_s=30)
        reader = bus.log_reader("ends")
        assert reader.end_offsets(before) == read_from(database)
        status = status_of(tmp_path, two)
        assert (status.rollouts, status.epoch) == (load.number, 0) and "does not train" in status.waiting_reason
        assert "libtorch" not in Path(f"/proc/{two.process.pid}/maps").read_text()
        assert two.process.terminate(30) == 0, two.process.log_tail()
        assert holders(database) == {}
    with database.read() as connection:
        assert LEADER not in set(connection.scalars(select(leases.c.name)))
    by_hand = open_test_database(tmp_path, "by-hand.db")
    ingest_facts(by_hand, ManualClock(), load.acknowledged)
    assert canonical_dump(database) == canonical_dump(by_hand)
    for each in (database, by_hand):
        each.close()
    bus.close()
