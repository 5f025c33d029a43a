"""Polls learner and generator, keeps the newest picture, and wakes those who watch when it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

from services.gateway.chat.generation import Generator
from services.gateway.releases.facts import ReleaseFact, ReleaseSource
from services.gateway.releases.tally import ThumbTally
from services.shared.domain.errors import DeadlineExceeded, ThumbloopError, Unavailable
from services.shared.telemetry.last_told import LastTold
from services.shared.telemetry.log import get_logger

Picture = dict[str, Any]

POLL_INTERVAL_S = 1.0
POLL_TIMEOUT_S = 2.0
SIGN_OF_LIFE_S = 15.0
"""So often a watcher hears something at least, so that no proxy takes its connection for a dead one."""


class ReleaseBoard:
    """One poller for all who watch. `run` is a task; `close` ends it and every watcher.

    While the learner is away its last known releases stay, and `learner.reachable` says false.
    """

    def __init__(
        self,
        *,
        source: ReleaseSource,
        generator: Generator,
        tally: ThumbTally,
        interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        self._source = source
        self._generator = generator
        self._tally = tally
        self._interval_s = interval_s
        self._releases: tuple[ReleaseFact, ...] = ()
        self._learner: Picture = {"reachable": False}
        self._served: Picture = {"reachable": False, "live_version": ""}
        self._told = LastTold()
        """Why the learner was last not understood."""
        self._changed = asyncio.Condition()
        self._closed = asyncio.Event()
        self._last: Picture = self._picture()
        self.shown = _json(self._last)
        """The picture of the last poll as JSON, made once for all who see it."""

    @property
    def live_version(self) -> str:
        """The policy version that answers now; "" while none is known."""
        return str(self._served["live_version"])

    def _picture(self) -> Picture:
        releases = [{**vars(release), "thumbs": self._thumbs(release.version)} for release in self._releases]
        return {"generator": self._served, "learner": self._learner, "releases": releases}

    async def run(self) -> None:
        """Polls until closed. No failure ends it."""
        while not self._closed.is_set():
            try:
                await self.poll()
            except Exception as error:  # else everybody would see one picture for ever
                get_logger().error("releases_not_polled", exc_info=error)
            try:
                await asyncio.wait_for(self._closed.wait(), self._interval_s)
            except TimeoutError:
                continue

    async def poll(self) -> None:
        """Asks once, and wakes watchers if anything differs."""
        await asyncio.gather(self._ask_generator(), self._ask_learner())
        picture = self._picture()
        if picture != self._last:
            self._last, self.shown = picture, _json(picture)
            async with self._changed:
                self._changed.notify_all()

    async def close(self) -> None:
        """Ends polling and watching."""
        self._closed.set()
        async with self._changed:
            self._changed.notify_all()

    async def watch(self, *, life_s: float, sign_s: float = SIGN_OF_LIFE_S) -> AsyncGenerator[str, None]:
        """The picture as JSON now, and again whenever it has changed; a slow watcher misses what lies between. "" after
        `sign_s` without a change. Ends after `life_s`.
        """
        clock = asyncio.get_running_loop().time
        end, seen = clock() + life_s, ""
        while not self._closed.is_set():
            if self.shown is not seen:
                seen = self.shown
                yield seen
            left_s = end - clock()
            if left_s <= 0:
                return
            if not await self._changes(seen, within_s=min(left_s, sign_s)):
                yield ""

    async def _changes(self, seen: str, *, within_s: float) -> bool:
        """Whether something else than `seen` is shown, or nothing any more."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: self._closed.is_set() or self.shown is not seen)
        except TimeoutError:
            return False
        return True

    async def _ask_generator(self) -> None:
        try:
            status = await self._generator.status(timeout_s=POLL_TIMEOUT_S)
        except ThumbloopError:
            self._served = {"reachable": False, "live_version": ""}
        else:
            self._served = {
                "reachable": True,
                "live_version": status.live_version,
                "staging_version": status.staging_version,
                "engine": status.engine,
            }

    async def _ask_learner(self) -> None:
        try:
            status, self._releases = await asyncio.gather(
                self._source.status(timeout_s=POLL_TIMEOUT_S), self._source.releases(timeout_s=POLL_TIMEOUT_S)
            )
        except ThumbloopError as error:
            self._tell(error)
            self._learner = {**self._learner, "reachable": False}
        else:
            self._told.succeeded()
            self._learner = {"reachable": True, **asdict(status)}

    def _tell(self, error: ThumbloopError) -> None:
        """Once: that it is away shows by itself, that it is there and not understood does not."""
        if self._told.is_news(error.reason) and not isinstance(error, (Unavailable, DeadlineExceeded)):
            get_logger().error("learner_not_understood", reason=error.reason, cause=error.message)

    def _thumbs(self, version: str) -> Picture:
        thumbs = self._tally.of(version)
        rated = thumbs.up + thumbs.down
        return {**asdict(thumbs), "up_rate": thumbs.up / rated if rated else None}


def _json(picture: Picture) -> str:
    return json.dumps(picture, separators=(",", ":"))
