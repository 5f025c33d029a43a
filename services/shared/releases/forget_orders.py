"""What a room does with orders when forgetting is all that it knows."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.shared.domain.control import Control, Forget
from services.shared.domain.errors import NotSupported


class ForgottenRaters:
    """Pseudonyms of forgotten people, as far as this replica has read the orders. Safe from any thread.

    Nothing that is recorded may carry one. It grows by one entry an order and is never shortened: an order holds for
    ever, and a pseudonym is short.
    """

    def __init__(self) -> None:
        self._raters: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def add(self, tenant: str, rater_id: str) -> None:
        """Twice is once."""
        with self._lock:
            self._raters.add((tenant, rater_id))

    def has(self, tenant: str, rater_id: str) -> bool:
        """Whether a person of this tenant was forgotten; nobody is "" ."""
        return bool(rater_id) and (tenant, rater_id) in self._raters

    def any_of(self, rater_ids: set[str]) -> bool:
        """Whether one of these is forgotten, of whichever tenant: for bytes that do not say whose they are."""
        with self._lock:
            return any(rater_id in rater_ids for _, rater_id in self._raters)


def forget_only(forget: Callable[[str, str, Forget], None]) -> Callable[[Control], None]:
    """`carry_out` for a `ControlFollower`: calls `forget` with control id, tenant and order.

    Any other order raises NotSupported, which the follower skips and does not acknowledge.
    """

    def carry_out(control: Control) -> None:
        if not isinstance(control.order, Forget):
            raise NotSupported(f"orders of kind {type(control.order).__name__} are not known here")
        forget(control.control_id, control.meta.tenant, control.order)

    return carry_out
