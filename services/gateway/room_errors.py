"""What a failed call to another room means to whoever asked the gateway.

The gateway calls the rooms in its own name, with the deployment's credential. So a room's "I do not know you" says
nothing of the client: it is the operator's to mend, and until then the room is away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import grpc

from services.shared.domain.errors import PermissionDenied, ThumbloopError, Unauthenticated, Unavailable
from services.shared.rpc.statuses import error_from_rpc
from services.shared.telemetry.log import get_logger

TELL_INTERVAL_S = 60.0
"""Between two lines of the log that say the same of a room: it is asked more than once a second."""

_log = get_logger()


class RoomErrors:
    """Of one room. Belongs to one event loop."""

    def __init__(self, room: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._room = room
        self._monotonic = monotonic
        self._tell_at = -math.inf

    def explained(self, error: grpc.RpcError) -> ThumbloopError:
        """The room's own error; Unavailable where it refused the gateway, and then the log has the room's words."""
        known = error_from_rpc(error)
        if not isinstance(known, (Unauthenticated, PermissionDenied)):
            return known
        if self._monotonic() >= self._tell_at:
            self._tell_at = self._monotonic() + TELL_INTERVAL_S
            _log.error("room_refused", room=self._room, reason=known.reason, cause=known.message)
        return Unavailable(
            f"The {self._room} does not accept this gateway, which is the operator's to mend: both need the same "
            "service.json in their secrets folder, and one version of Thumbloop. The gateway's log says more "
            "(room_refused). Try again later.",
            reason="ROOM_REFUSED",
        )
