"""A replica's way to the learner's orders: read `controls`, carry out, acknowledge.

Orders are carried out one after another as they come; one that fails is tried again before the next of what was read
with it. An order may be carried out twice (after a restart, or after trouble with the log), so doing it twice must be
doing it once. One that this version does not know is skipped, and not acknowledged: the learner sees who lags behind.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from services.shared.bus.interface import LogReader, Record
from services.shared.contracts.controls import decode_control
from services.shared.contracts.topics import CONTROLS
from services.shared.domain.control import Control
from services.shared.domain.errors import Busy, NotSupported, Unprocessable
from services.shared.releases.backoff import Backoff
from services.shared.releases.loop_thread import LoopThread
from services.shared.releases.topic_tail import TopicTail
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()
_REMEMBERED = 10_000


class ControlFollower:
    """`start` gives it a thread; `stop` ends that; `step` is one round, for whoever drives it."""

    def __init__(
        self,
        *,
        deployment: str,
        open_reader: Callable[[], LogReader],
        carry_out: Callable[[Control], None],
        acknowledge: Callable[[str], None],
        metrics: Metrics,
        poll_s: float = 0.2,
        retry_max_s: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`carry_out` raises when it could not, NotSupported when it never will; `acknowledge` takes a control id and
        never blocks.
        """
        self._deployment = deployment
        self._carry_out = carry_out
        self._acknowledge = acknowledge
        self._metrics = metrics
        self._poll_s = poll_s
        self._tail = TopicTail(open_reader=open_reader, topic=CONTROLS, monotonic=monotonic)
        self._backoff = Backoff(first_s=0.5, max_s=retry_max_s, monotonic=monotonic)
        self._waiting: deque[Control] = deque()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._caught_up = threading.Event()
        self._stopping = threading.Event()
        self._thread = LoopThread("follow-controls", self.step, self._tail.close, retry_max_s=2.0)

    @property
    def caught_up(self) -> bool:
        """Whether all orders that were there at the start are carried out. Stays true."""
        return self._caught_up.is_set()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Waits for it, at most so long."""
        return self._caught_up.wait(timeout_s)

    def start(self) -> None:
        """Follows in a thread of its own, which no error of the log or of an order ends."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the thread, after the order that runs. Twice is once."""
        self._stopping.set()
        self._thread.stop(timeout_s)

    def step(self) -> None:
        """Carries out what waits, else reads on. Raises Unavailable when the log is away."""
        if not self._waiting:
            for record in self._tail.poll(self._poll_s):
                self._consider(record)
        else:
            self._stopping.wait(min(self._poll_s, self._backoff.remaining_s()))
        while self._waiting and self._backoff.remaining_s() == 0:
            self._try(self._waiting[0])
        if self._tail.at_end and not self._waiting:
            self._caught_up.set()

    def _consider(self, record: Record) -> None:
        try:
            control = decode_control(record.value)
        except Unprocessable as error:
            self._skip(record, error.reason)
            return
        if control.meta.deployment != self._deployment:
            self._skip(record, "OTHER_DEPLOYMENT")
        elif control.order is None:
            self._skip(record, "UNKNOWN_ORDER")
        elif control.control_id not in self._done:
            self._waiting.append(control)

    def _try(self, control: Control) -> None:
        try:
            self._carry_out(control)
        except NotSupported as error:
            self._give_up(control, error)
            return
        except Busy as error:
            _log.info(
                "order_waits", control_id=control.control_id, message=error.message, retry_s=self._backoff.failed()
            )
            return
        except Exception as error:  # whatever it is, it must not end the following of orders
            retry_s = self._backoff.failed()
            _log.warning("order_failed", control_id=control.control_id, retry_s=retry_s, exc_info=error)
            return
        self._remember(control)
        self._acknowledge(control.control_id)

    def _give_up(self, control: Control, error: NotSupported) -> None:
        """An order that this version, or this installation, cannot carry out: said, and not acknowledged."""
        self._metrics.increment("thumbloop_release_skipped_events_total", reason=error.reason)
        _log.warning("order_skipped", control_id=control.control_id, reason=error.reason, message=error.message)
        self._remember(control)

    def _remember(self, control: Control) -> None:
        self._backoff.reset()
        self._waiting.popleft()
        self._done[control.control_id] = None
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    def _skip(self, record: Record, reason: str) -> None:
        self._metrics.increment("thumbloop_release_skipped_events_total", reason=reason)
        place = f"{record.place.topic}/{record.place.partition}@{record.offset}"
        _log.warning("order_skipped", place=place, reason=reason)
