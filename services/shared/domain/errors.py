"""Every error that Thumbloop raises on purpose.

    ThumbloopError
    ├── InvalidInput          the request is wrong; the message says how to mend it
    │   └── NotSupported      well-formed, but not offered (yet)
    ├── Unauthenticated       no, expired or altered credentials
    ├── PermissionDenied      valid credentials for something else
    ├── NotFound
    ├── Conflict              the same id with another content
    ├── FailedPrecondition    right request, wrong moment: the state does not allow it
    ├── Busy                  a bounded queue is full; come again after `retry_after`
    ├── Unavailable           something that this needs is away; come again after `retry_after`
    ├── DeadlineExceeded
    ├── Unprocessable         an event that cannot be used; it goes to the dead-letter topic with its reason
    ├── Fenced                a newer leader or lease holder has taken over; stop writing
    ├── Corrupt               bytes do not match their digest, or a log has a gap
    └── Misconfigured         settings or machine; the message says how to mend it

`services.shared.rpc.statuses` maps each to a gRPC code and an HTTP status; a test holds that table complete.
"""

from __future__ import annotations


class ThumbloopError(Exception):
    """Root. `reason` is a stable UPPER_SNAKE word for programs (AIP-193), `field` the input that was wrong."""

    reason = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str | None = None, field: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.field = field
        self.retry_after = retry_after
        """Seconds after which trying again makes sense; None: it does not."""


class InvalidInput(ThumbloopError):
    """The request is wrong."""

    reason = "INVALID_INPUT"


class NotSupported(InvalidInput):
    """Well-formed, but not offered."""

    reason = "NOT_SUPPORTED"


class Unauthenticated(ThumbloopError):
    """No, expired or altered credentials."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(ThumbloopError):
    """Valid credentials for something else."""

    reason = "PERMISSION_DENIED"


class NotFound(ThumbloopError):
    """No such thing."""

    reason = "NOT_FOUND"


class Conflict(ThumbloopError):
    """The same id with another content."""

    reason = "CONFLICT"


class FailedPrecondition(ThumbloopError):
    """The state does not allow it."""

    reason = "FAILED_PRECONDITION"


class Busy(ThumbloopError):
    """A bounded queue is full."""

    reason = "BUSY"


class Unavailable(ThumbloopError):
    """Something that this needs is away."""

    reason = "UNAVAILABLE"


class DeadlineExceeded(ThumbloopError):
    """The deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class Unprocessable(ThumbloopError):
    """An event that cannot be used."""

    reason = "UNPROCESSABLE"


class Fenced(ThumbloopError):
    """A newer leader has taken over."""

    reason = "FENCED"


class Corrupt(ThumbloopError):
    """Bytes do not match their digest, or a log has a gap."""

    reason = "CORRUPT"


class Misconfigured(ThumbloopError):
    """Settings or machine."""

    reason = "MISCONFIGURED"
