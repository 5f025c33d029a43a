"""One model, many who want a pass: a bounded queue before one thread.

Who waits is served in order of arrival; answers of several waiting callers share a pass. `try_submit` refuses at once
when the queue is full, for callers that can be told to come again; `submit` waits for room, as the consumer does.
Lifecycle: `start`, `stop`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from services.reward.base_model import Answer, BaseModel, PassResult
from services.shared.domain.errors import Busy, Unavailable

_POLL_S = 0.2


class QueuedPass(Future[list[PassResult]]):
    """A pass that is waited for. It cannot be cancelled once it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        """It runs, or it will never."""
        self.alone = False
        """It runs, and shares its pass with nobody."""
        self.add_done_callback(lambda _: self.begun.set())


@dataclass(frozen=True, kw_only=True)
class _Job:
    answers: Sequence[Answer]
    future: QueuedPass


class ModelLane:
    """Runs passes one at a time. `submit` and `try_submit` are thread-safe."""

    def __init__(self, base: BaseModel, *, max_batch: int, max_waiting: int = 32) -> None:
        """`max_batch`: answers that waiting callers may share a pass with; `max_waiting`: jobs in the queue."""
        self._base = base
        self._max_batch = max_batch
        self._jobs: queue.Queue[_Job] = queue.Queue(maxsize=max_waiting)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="model-lane", daemon=True)

    def start(self) -> None:
        """Takes jobs from now on."""
        self._thread.start()

    def try_submit(self, answers: Sequence[Answer]) -> QueuedPass:
        """Queues a pass, or raises Busy at once."""
        job = self._job(answers)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Busy("the model has as many passes waiting as it may; come again", retry_after=1.0) from None
        return self._queued(job)

    def submit(self, answers: Sequence[Answer], *, timeout_s: float) -> QueuedPass:
        """Queues a pass as soon as there is room; raises Busy after `timeout_s`."""
        job = self._job(answers)
        try:
            self._jobs.put(job, timeout=timeout_s)
        except queue.Full:
            raise Busy(f"no room before the model within {timeout_s:g} s", retry_after=1.0) from None
        return self._queued(job)

    @property
    def running(self) -> bool:
        """The thread lives."""
        return self._thread.is_alive()

    def stop(self, timeout_s: float) -> None:
        """Finishes the pass that runs; what waits fails with Unavailable. Twice is once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._refuse_waiting()

    def _job(self, answers: Sequence[Answer]) -> _Job:
        if self._stopping.is_set():
            raise Unavailable("the reward service is stopping", retry_after=1.0)
        return _Job(answers=answers, future=QueuedPass())

    def _queued(self, job: _Job) -> QueuedPass:
        """The job's future. A stop that came between check and queue has left it to nobody, so it is refused here."""
        if self._stopping.is_set() and not self._thread.is_alive():
            self._refuse_waiting()
        return job.future

    def _refuse_waiting(self) -> None:
        """Fails what waits; who has given up waiting needs no word."""
        while True:
            try:
                future = self._jobs.get_nowait().future
            except queue.Empty:
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(Unavailable("the reward service is stopping", retry_after=1.0))

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                first = self._jobs.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            jobs = [job for job in self._together(first) if job.future.set_running_or_notify_cancel()]
            if jobs:
                self._pass(jobs)

    def _together(self, first: _Job) -> list[_Job]:
        """The first job, and those behind it until a pass is full."""
        jobs, size = [first], len(first.answers)
        while size < self._max_batch:
            try:
                jobs.append(self._jobs.get_nowait())
            except queue.Empty:
                break
            size += len(jobs[-1].answers)
        return jobs

    def _pass(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            job.future.alone = len(jobs) == 1
            job.future.begun.set()
        try:
            results = self._base.run([answer for job in jobs for answer in job.answers])
        except Exception as error:  # Whoever waits must hear of it; the lane itself goes on.
            for job in jobs:
                job.future.set_exception(error)
            return
        for job in jobs:
            job.future.set_result(results[: len(job.answers)])
            results = results[len(job.answers) :]
