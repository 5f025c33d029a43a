"""The learner as a process: ready, drained by SIGTERM, ended with a clear word when another takes the lead.

Plan: a learner with the scripted trainer starts on the shared broker; a second one starts on the same store (as a
supervisor might, that took the first for dead); later the second gets SIGTERM.
Pass: the first ends by itself with a code that is not 0 and says that another has taken over; the second is ready and
leads with a greater epoch; after SIGTERM its code is 0, and a third starts from the same store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.embedded.ports import free_port
from services.embedded.readiness import grpc_ready
from services.shared.rpc import open_sync_channel
from services.shared.settings.model import BusSettings
from tests.support.access import credential_of
from tests.support.patience import eventually


@contextmanager
def _learner(folder: Path, bus: BusSettings, name: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process and its gRPC port; it is gone afterwards. Its log is `{name}.log`."""
    port = free_port()
    settings = {
        "DEPLOYMENT__DATA_DIR": folder,
        "BUS__BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "BUS__TOPIC_PREFIX": bus.topic_prefix,
        "LEARNER__PORT": port,
        "LEARNER__METRICS_PORT": free_port(),
        "LEARNER__REWARD_ADDRESS": f"127.0.0.1:{free_port()}",
        "LEARNER__TRAINER": "scripted",
        "LEARNER__LEASE_TTL_S": 1.0,
    }
    environment = {f"THUMBLOOP_{key}": str(value) for key, value in settings.items()}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "learner"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=log,
            stderr=log,
        )
        try:
            yield process, port
        finally:
            process.kill()
            process.wait(10)


def _status(folder: Path, port: int) -> learner_pb2.GetStatusResponse:
    with open_sync_channel(f"127.0.0.1:{port}", credential=credential_of(folder)) as channel:
        return learner_pb2_grpc.LearnerServiceStub(channel).GetStatus(learner_pb2.GetStatusRequest(), timeout=10)


def _ready(folder: Path, name: str, port: int) -> learner_pb2.GetStatusResponse:
    log = folder / f"{name}.log"
    eventually(lambda: grpc_ready(port), within_s=60, what=f"{name} is ready; {log.read_text()[-2000:]}")
    return eventually(
        lambda: found if (found := _status(folder, port)).reward_model_version else None, within_s=20, what="release 0"
    )


def test_one_leader_at_a_time(tmp_path: Path, bus_settings: BusSettings) -> None:
    with _learner(tmp_path, bus_settings, "first") as (first, first_port):
        before = _ready(tmp_path, "first", first_port)
        assert before.policy_version.startswith("p-0001-000000-")
        with _learner(tmp_path, bus_settings, "second") as (second, second_port):
            after = _ready(tmp_path, "second", second_port)
            assert after.epoch == before.epoch + 1
            assert after.policy_version == before.policy_version
            assert first.wait(30) != 0
            assert "another process has taken over" in (tmp_path / "first.log").read_text()
            second.terminate()
            assert second.wait(40) == 0, (tmp_path / "second.log").read_text()[-2000:]
    with _learner(tmp_path, bus_settings, "third") as (third, third_port):
        assert _ready(tmp_path, "third", third_port).epoch == before.epoch + 2
        third.terminate()
        assert third.wait(40) == 0
