"""Keeps a room's snapshot of the keys new: asks its owner at intervals, and starts from the copy on disk.

While the learner is away a room goes on with what it knows; a key that is revoked meanwhile works until the learner
answers again. Without any snapshot nobody with a key is let in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.shared.access.snapshot import AccessSnapshot
from services.shared.access.snapshot_file import SnapshotFile
from services.shared.access.wire import snapshot_from_proto
from services.shared.releases.loop_thread import LoopThread
from services.shared.rpc.statuses import error_from_rpc
from services.shared.telemetry.log import get_logger

_log = get_logger()
CALL_TIMEOUT_S = 5.0

FetchSnapshot = Callable[[str], AccessSnapshot | None]
"""Given the digest of what the caller has ("" for nothing): the newest, or None if that is what it has. May block."""


class AccessFollower:
    """`start` gives it a thread; `snapshot` is the newest that it has; `stop` ends the thread."""

    def __init__(self, *, fetch: FetchSnapshot, interval_s: float, copy: SnapshotFile | None) -> None:
        """`copy` None: the owner itself, which needs none."""
        self._fetch = fetch
        self._interval_s = interval_s
        self._copy = copy
        self._snapshot = copy.read() if copy is not None else None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = LoopThread("follow-access", self._round, lambda: None, retry_max_s=interval_s)

    @property
    def snapshot(self) -> AccessSnapshot | None:
        """None: none was ever had."""
        return self._snapshot

    def start(self) -> None:
        """Follows in a thread of its own, which no error ends."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the thread. Twice is once."""
        self._stopping.set()
        self._wake.set()
        self._thread.stop(timeout_s)

    def look_now(self) -> None:
        """Does not wait for the end of the interval: the owner has just changed a key."""
        self._wake.set()

    def step(self) -> None:
        """Asks once. Raises ThumbloopError when the owner does not answer."""
        known = self._snapshot.digest if self._snapshot is not None else ""
        newest = self._fetch(known)
        if newest is None or newest.digest == known:
            return
        self._snapshot = newest
        _log.info("access_changed", keys=len(newest.keys))
        if self._copy is not None:
            try:
                self._copy.write(newest)
            except OSError as error:
                _log.warning("access_copy_unwritable", error=str(error))

    def _round(self) -> None:
        if self._stopping.is_set():
            return
        self.step()
        self._wake.wait(self._interval_s)
        self._wake.clear()


def fetch_from_learner(channel: grpc.Channel, *, replica_id: str) -> FetchSnapshot:
    """Asks the learner over a blocking channel that carries the service credential and stays the caller's. The learner
    waits for `replica_id` where an order concerns all that live.
    """
    stub = learner_pb2_grpc.LearnerServiceStub(channel)

    def fetch(known_digest: str) -> AccessSnapshot | None:
        request = learner_pb2.GetAccessSnapshotRequest(known_digest=known_digest, replica_id=replica_id)
        try:
            response = stub.GetAccessSnapshot(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        return None if response.unchanged else snapshot_from_proto(response)

    return fetch
