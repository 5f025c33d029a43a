"""The reward room as a real process on a real broker, with releases that a test announces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.embedded.ports import free_port
from services.embedded.readiness import grpc_ready
from services.learner.releaser.first_releases import write_first_release
from services.shared.bus.interface import OutgoingEvent
from services.shared.checkpoints import CheckpointStore
from services.shared.contracts.policies import encode_announcement
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.scores import decode_score
from services.shared.contracts.topics import POLICIES, ROLLOUTS, SCORES, load_topic_pages
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score
from services.shared.domain.scripted_language import BASE_MODEL_DIGEST, BASE_MODEL_NAME, FEATURES
from services.shared.ids import utc_now
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.storage import save_heads
from services.shared.rpc import open_sync_channel
from services.shared.settings.model import BusSettings
from tests.support.access import credential_of
from tests.support.brokers import bus_with_topics
from tests.support.facts import DEPLOYMENT, make_meta
from tests.support.patience import eventually
from tests.support.reading import assign_all

RUN = "from services.reward.main import run; from services.shared.settings import load_settings; run(load_settings())"


@dataclass(kw_only=True)
class RewardProcess:
    """Started and killed by the test; its log lies in the folder."""

    folder: Path
    bus_settings: BusSettings
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.bus = bus_with_topics(self.bus_settings, load_topic_pages().values())
        self.publisher = self.bus.publisher("test")
        self.checkpoints = CheckpointStore((self.folder / "checkpoints").as_uri())
        self.sequence = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.channel = open_sync_channel(f"127.0.0.1:{self.port}", credential=credential_of(self.folder))

    def start(self) -> None:
        """A new process, in a process group of its own."""
        settings: dict[str, Any] = {
            "DEPLOYMENT__NAME": DEPLOYMENT,
            "DEPLOYMENT__DATA_DIR": self.folder,
            "BUS__BOOTSTRAP_SERVERS": self.bus_settings.bootstrap_servers,
            "BUS__TOPIC_PREFIX": self.bus_settings.topic_prefix,
            "REWARD__PORT": self.port,
            "REWARD__METRICS_PORT": free_port(),
            "REWARD__LEARNER_ADDRESS": f"127.0.0.1:{free_port()}",
            "REWARD__SCORER": "scripted",
        }
        environment = {f"THUMBLOOP_{name}": str(value) for name, value in settings.items()}
        with (self.folder / "reward.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        eventually(lambda: grpc_ready(self.port), within_s=60, what=f"ready; {self.log()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def terminate(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.channel.close()
        self.bus.close()

    def log(self) -> str:
        return (self.folder / "reward.log").read_text()

    def release(self, heads: RewardHeads) -> str:
        """Writes and announces a reward model; gives its version."""
        scratch = self.folder / f"heads-{self.sequence}"
        scratch.mkdir()
        files: dict[str, Path | bytes] = {path.name: path for path in save_heads(heads, scratch)}
        self.sequence += 1
        candidate = write_first_release(
            self.checkpoints,
            ReleaseKind.REWARD_MODEL,
            files,
            epoch=self.sequence,
            base_model_name=BASE_MODEL_NAME,
            base_model_digest=BASE_MODEL_DIGEST,
            clock=utc_now,
        )
        announcement = Announcement(
            meta=make_meta(f"announcement-{self.sequence}"),
            kind=ReleaseKind.REWARD_MODEL,
            epoch=self.sequence,
            sequence=self.sequence,
            version=candidate.version,
            parent_version="",
            checkpoint_path=candidate.checkpoint_path,
            manifest_sha256=candidate.manifest_sha256,
            base_model_digest=BASE_MODEL_DIGEST,
            reason=AnnouncementReason.RELEASE,
        )
        self._publish(OutgoingEvent(topic=POLICIES, key=announcement.key, value=encode_announcement(announcement)))
        return candidate.version

    def send(self, *rollouts: Rollout) -> None:
        for rollout in rollouts:
            self._publish(OutgoingEvent(topic=ROLLOUTS, key=rollout.rollout_id, value=encode_rollout(rollout)))

    def scores(self, wanted: set[str], *, within_s: float = 60.0) -> list[Score]:
        """All scores from the beginning, as soon as they cover these rollouts."""
        reader = self.bus.log_reader("test-scores")
        assign_all(reader, SCORES)
        found: list[Score] = []

        def covered() -> bool:
            found.extend(decode_score(record.value) for record in reader.poll(0.2))
            return wanted <= {score.rollout_id for score in found}

        try:
            eventually(covered, within_s=within_s, what=f"scores; {self.log()[-2000:]}")
        finally:
            reader.close()
        return found

    def _publish(self, event: OutgoingEvent) -> None:
        self.publisher.send(event).result(timeout=15)


def zero_heads() -> RewardHeads:
    return RewardHeads.zero(FEATURES)
