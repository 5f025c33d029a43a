"""What a follower meets: a topic in memory, a real store on local files, a target and a clock of its own."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from services.shared.bus.interface import LogReader, OutgoingEvent, Place
from services.shared.bus.memory import MemoryBus
from services.shared.bus.partitioning import partition_of
from services.shared.checkpoints import CheckpointStore, Manifest, release_path
from services.shared.contracts.policies import encode_announcement
from services.shared.contracts.topics import POLICIES, load_topic_pages
from services.shared.domain.errors import Unavailable
from services.shared.domain.events import EventMeta
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind
from services.shared.releases.acknowledger import Acknowledgement
from services.shared.releases.follower import FollowerSettings, ReleaseFollower
from services.shared.telemetry.metrics import Metrics

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVENT_ID = "01890000-0000-7000-8000-{:012d}"
MODEL = "ab" * 32


class Log:
    """A topic on the bus in memory, with a say in which partition an event goes to."""

    def __init__(self, topic: str = POLICIES) -> None:
        self.bus = MemoryBus()
        self.bus.ensure_topics([replace(load_topic_pages()[topic], partitions=3)])
        self.topic = topic
        self.readers: list[LogReader] = []

    def append(self, value: bytes, partition: int = 0) -> None:
        count = len(self.bus.places(self.topic))
        key = next(key for key in map(str, itertools.count()) if partition_of(key, count) == partition)
        self.bus.append(OutgoingEvent(topic=self.topic, key=key, value=value))

    def add_partition(self) -> int:
        last = self.bus.places(self.topic)[-1]
        self.bus.logs[Place(self.topic, last.partition + 1)] = type(self.bus.logs[last])()
        return last.partition + 1

    def open_reader(self) -> LogReader:
        self.readers.append(self.bus.log_reader("test"))
        return self.readers[-1]


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Target:
    """Notes what it was told; fails while told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.files: dict[str, list[str]] = {}
        self.stage_error: Exception | None = None
        self.flip_error: Exception | None = None
        self.serves = ""

    def stage(self, announcement: Announcement, folder: Path) -> None:
        self.calls.append(("stage", announcement.version))
        self.files[announcement.version] = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        if self.stage_error is not None:
            raise self.stage_error

    def flip(self, announcement: Announcement) -> None:
        if self.flip_error is not None:
            raise self.flip_error
        self.calls.append(("flip", announcement.version))
        self.serves = announcement.version


class Source:
    """The real store on local files; may be away."""

    def __init__(self, root: Path) -> None:
        self.store = CheckpointStore(f"file://{root}")
        self.away = False
        self.fetched: list[str] = []

    def fetch(self, path: str, manifest_sha256: str, into: Path, names: Collection[str] | None = None) -> Manifest:
        if self.away:
            raise Unavailable("The checkpoint store is away.")
        self.fetched.append(path)
        return self.store.fetch(path, manifest_sha256, into, names)


class World:
    """A follower of the policy and all that it meets."""

    def __init__(self, root: Path, names: Collection[str] | None = None) -> None:
        self.root = root
        self.log, self.clock, self.target = Log(), Clock(), Target()
        self.source = Source(root / "checkpoints")
        self.acknowledged: list[Acknowledgement] = []
        self.metrics = Metrics()
        self.follower = ReleaseFollower(
            kind=ReleaseKind.POLICY,
            deployment="test",
            open_reader=self.log.open_reader,
            source=self.source,
            target=self.target,
            acknowledge=self.acknowledged.append,
            staging_dir=root / "staged",
            metrics=self.metrics,
            names=names,
            base_model_digest=MODEL,
            settings=FollowerSettings(poll_s=0.001, poll_records=2, retry_first_s=1.0, retry_max_s=4.0, keep_folders=2),
            monotonic=self.clock,
        )

    def release(
        self, number: int, *, epoch: int = 1, sequence: int | None = None, kind: ReleaseKind = ReleaseKind.POLICY
    ) -> Announcement:
        """Writes a release (number 0 without files) and gives its announcement."""
        version = f"{'p' if kind is ReleaseKind.POLICY else 'rm'}-{epoch:04d}-{number:06d}-{number:08x}"
        path = release_path(kind, epoch=epoch, version=version)
        files = {"adapter.safetensors": b"weights %d" % number, "trainer/rng.json": b"{}"} if number else {}
        manifest = Manifest(
            version=version,
            kind=kind,
            epoch=epoch,
            number=number,
            parent_version="",
            base_model_name="base",
            base_model_digest=MODEL,
            created_time=NOW,
        )
        _, sha256 = self.source.store.put_release(path, files, manifest)
        return Announcement(
            meta=EventMeta(event_id=EVENT_ID.format(number), deployment="test", tenant="default", event_time=NOW),
            kind=kind,
            epoch=epoch,
            sequence=number if sequence is None else sequence,
            version=version,
            parent_version="",
            checkpoint_path=path,
            manifest_sha256=sha256,
            base_model_digest=MODEL,
            reason=AnnouncementReason.RELEASE,
        )

    def announce(self, announcement: Announcement, partition: int = 0) -> None:
        self.log.append(encode_announcement(announcement), partition)

    def steps(self, count: int = 10) -> None:
        for _ in range(count):
            self.follower.step()

    def staged_folders(self) -> set[str]:
        return {path.name for path in (self.root / "staged" / "policy").iterdir()}
