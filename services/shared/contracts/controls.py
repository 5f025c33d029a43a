"""Orders of the learner, to and from the wire."""

from __future__ import annotations

from collections.abc import Collection

from thumbloop.learner.v1 import control_pb2

from services.shared.contracts.checks import check_count, check_id, check_integer, check_text
from services.shared.contracts.meta import meta_from_proto, meta_to_proto
from services.shared.contracts.wire import decode, encode
from services.shared.domain.control import Control, Forget, Pause, Quarantine
from services.shared.domain.errors import InvalidInput

MAX_ITEMS = 20_000
MAX_REASON_CHARS = 2_000

Order = Forget | Quarantine | Pause


def encode_control(control: Control) -> bytes:
    """Event bytes. Raises InvalidInput for an order that `check_control` refuses, and for none."""
    return encode(control, control_to_proto)


def decode_control(data: bytes) -> Control:
    """The order in an event; `order` None is one that this release does not know. Raises Unprocessable."""
    return decode(data, control_pb2.Control, control_from_proto)


def check_control(control: Control) -> None:
    """Raises InvalidInput unless the order names what it is about, within bounds."""
    check_id("control_id", control.control_id)
    check_integer("epoch", control.epoch)
    match control.order:
        case Forget(rater_id=rater_id, rollout_ids=rollout_ids):
            check_id("forget.rater_id", rater_id)
            _check_ids("forget.rollout_ids", rollout_ids)
        case Quarantine(rater_ids=rater_ids, feedback_ids=feedback_ids, reason=reason):
            _check_ids("quarantine.rater_ids", rater_ids)
            _check_ids("quarantine.feedback_ids", feedback_ids)
            check_text("quarantine.reason", reason, MAX_REASON_CHARS)
        case Pause(reason=reason):
            check_text("pause.reason", reason, MAX_REASON_CHARS)
        case None:
            pass


def _check_ids(field: str, ids: Collection[str]) -> None:
    check_count(field, ids, MAX_ITEMS)
    for value in ids:
        check_id(field, value)


def control_to_proto(control: Control) -> control_pb2.Control:
    """Raises InvalidInput as `check_control` does, and for no order."""
    check_control(control)
    message = control_pb2.Control(meta=meta_to_proto(control.meta), control_id=control.control_id, epoch=control.epoch)
    match control.order:
        case Forget(rater_id=rater_id, rollout_ids=rollout_ids):
            message.forget.CopyFrom(control_pb2.Forget(rater_id=rater_id, rollout_ids=rollout_ids))
        case Quarantine(rater_ids=rater_ids, feedback_ids=feedback_ids, reason=reason):
            message.quarantine.CopyFrom(
                control_pb2.Quarantine(rater_ids=rater_ids, feedback_ids=feedback_ids, reason=reason)
            )
        case Pause(paused=paused, reason=reason):
            message.pause.CopyFrom(control_pb2.Pause(paused=paused, reason=reason))
        case None:
            raise InvalidInput("A control without an order says nothing.", reason="MISSING_ORDER", field="order")
    return message


def control_from_proto(message: control_pb2.Control) -> Control:
    """Raises InvalidInput as `check_control` does."""
    control = Control(
        meta=meta_from_proto(message.meta, present=message.HasField("meta")),
        control_id=message.control_id,
        epoch=message.epoch,
        order=_read_order(message),
    )
    check_control(control)
    return control


def _read_order(message: control_pb2.Control) -> Order | None:
    match message.WhichOneof("order"):
        case "forget":
            return Forget(rater_id=message.forget.rater_id, rollout_ids=tuple(message.forget.rollout_ids))
        case "quarantine":
            return Quarantine(
                rater_ids=tuple(message.quarantine.rater_ids),
                feedback_ids=tuple(message.quarantine.feedback_ids),
                reason=message.quarantine.reason,
            )
        case "pause":
            return Pause(paused=message.pause.paused, reason=message.pause.reason)
        case _:
            return None
