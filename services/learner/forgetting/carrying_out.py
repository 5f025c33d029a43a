"""The learner's own share of an order to forget, once the store has let go of the person: memory, dead letters, and the
store's log."""

from __future__ import annotations

from collections.abc import Callable, Collection

from sqlalchemy import select

from services.learner.forgetting.dead_letters import DeadLetterEraser
from services.learner.state.acknowledgements import Acknowledgements
from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy
from services.shared.store.database import Database
from services.shared.store.tables import control_acknowledgements

LEARNER = "learner"
"""Name under which the learner acknowledges, whichever process leads."""

Abandon = Callable[[Collection[str]], bool]
"""Tells the trainer to give up what it holds of these rollouts. True: it still has them in memory."""


class OrderWork:
    """Carries orders out for `consumer`. Retried by the follower until it returns."""

    def __init__(
        self,
        database: Database,
        acknowledgements: Acknowledgements,
        *,
        consumer: str,
        abandon: Abandon,
        eraser: DeadLetterEraser | None,
    ) -> None:
        """`eraser` None: another process of the learner sees to the dead letters."""
        self._database = database
        self._acknowledgements = acknowledgements
        self._consumer = consumer
        self._abandon = abandon
        self._eraser = eraser

    def forget(self, control_id: str, order: Forget) -> None:
        """Returns when memory, dead letters and the store's log hold nothing more, and the store knows it. Raises Busy,
        Unavailable, NotSupported (the broker cannot delete records: then the order stays unacknowledged).
        """
        if self._is_done(control_id):
            return
        if self._abandon(order.rollout_ids):
            raise Busy("the trainer still holds a batch of theirs; it gives it up at its next safe point.")
        self._database.clear_log()
        if self._eraser is not None:
            self._eraser.erase(rater_ids=[order.rater_id], rollout_ids=order.rollout_ids)
        self._acknowledgements.control(replica_id=self._consumer, control_id=control_id)

    def _is_done(self, control_id: str) -> bool:
        """The topic is read whole after each start; what was carried out once stays so."""
        query = select(control_acknowledgements.c.control_id).where(
            control_acknowledgements.c.control_id == control_id,
            control_acknowledgements.c.replica_id == self._consumer,
        )
        with self._database.read() as connection:
            return connection.scalar(query) is not None
