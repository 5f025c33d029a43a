"""Tells the learner what a replica serves and which orders it has carried out, in the background.

An acknowledgement never holds up serving: it is left here and sent when the learner is there. Of a kind of release only
the last word counts, so what waits is bounded by the number of kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.shared.contracts.policies import release_kind_to_proto
from services.shared.domain.release import ReleaseKind
from services.shared.releases.background_sender import BackgroundSender
from services.shared.rpc import error_from_rpc

_ORDERS_WAITING = 100_000
"""After a start all orders there ever were are acknowledged again; none of them may be dropped for that."""


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """What became of an announcement. `stage_error` empty: the version serves. Else the old one goes on serving."""

    kind: ReleaseKind
    epoch: int
    sequence: int
    version: str
    stage_error: str = ""


class Acknowledge(Protocol):
    """Takes acknowledgements; never blocks, never raises."""

    def __call__(self, acknowledgement: Acknowledgement, /) -> None:
        """Leaves it to be sent."""


class ReleaseAcknowledger:
    """Sends the last acknowledgement of each kind by `AcknowledgeRelease`, again and again until it is taken."""

    def __init__(self, *, channel: grpc.Channel, replica_id: str, timeout_s: float = 5.0) -> None:
        """`channel` to the learner (`open_sync_channel`) stays the caller's; `timeout_s` is the deadline of a call."""
        stub = learner_pb2_grpc.LearnerServiceStub(channel)

        def send(acknowledgement: Acknowledgement) -> None:
            request = learner_pb2.AcknowledgeReleaseRequest(
                replica_id=replica_id,
                kind=release_kind_to_proto(acknowledgement.kind),
                epoch=acknowledgement.epoch,
                sequence=acknowledgement.sequence,
                version=acknowledgement.version,
                stage_error=acknowledgement.stage_error,
            )
            _call(lambda: stub.AcknowledgeRelease(request, timeout=timeout_s))

        self._sender = BackgroundSender[ReleaseKind, Acknowledgement]("acknowledge-releases", send)

    def __call__(self, acknowledgement: Acknowledgement) -> None:
        """See `Acknowledge`."""
        self._sender.offer(acknowledgement.kind, acknowledgement)

    def start(self) -> None:
        """Begins to send."""
        self._sender.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends it; what is not sent is left (the learner hears it again from the next start). Twice is once."""
        self._sender.stop(timeout_s)


class ControlAcknowledger:
    """The same for orders, by `AcknowledgeControl`."""

    def __init__(self, *, channel: grpc.Channel, replica_id: str, timeout_s: float = 5.0) -> None:
        """See `ReleaseAcknowledger`."""
        stub = learner_pb2_grpc.LearnerServiceStub(channel)

        def send(control_id: str) -> None:
            request = learner_pb2.AcknowledgeControlRequest(replica_id=replica_id, control_id=control_id)
            _call(lambda: stub.AcknowledgeControl(request, timeout=timeout_s))

        self._sender = BackgroundSender[str, str]("acknowledge-controls", send, max_waiting=_ORDERS_WAITING)

    def __call__(self, control_id: str) -> None:
        """Leaves it to be sent; never blocks."""
        self._sender.offer(control_id, control_id)

    def start(self) -> None:
        """Begins to send."""
        self._sender.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends it. Twice is once."""
        self._sender.stop(timeout_s)


def _call(call: Callable[[], object]) -> None:
    try:
        call()
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
