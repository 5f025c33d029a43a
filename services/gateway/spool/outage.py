"""Whether the log is known to be away, so that not every request waits for that to show again."""

from __future__ import annotations

from services.shared.telemetry.log import get_logger

_log = get_logger()


class Outage:
    """Belongs to one event loop. Begins with a failed write; ends with a successful one."""

    def __init__(self) -> None:
        self.running = False

    def begin(self, cause: BaseException) -> None:
        """Twice is once."""
        if not self.running:
            self.running = True
            _log.warning("log_away", cause=repr(cause), feedback="goes to the spool")

    def end(self) -> None:
        """Twice is once."""
        if self.running:
            self.running = False
            _log.info("log_back")
