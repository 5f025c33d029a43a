"""The reward models that can score now: the live one, and those that a training batch may still have pinned."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from services.shared.domain.errors import FailedPrecondition
from services.shared.domain.release import Announcement
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.storage import load_heads


class ResidentModels:
    """Versions and their heads; the target that releases of the reward model are staged into. Thread-safe.

    The least recently used version makes room for a new one; the live version and the one just staged always stay.
    """

    def __init__(self, *, feature_count: int, capacity: int) -> None:
        self._feature_count = feature_count
        self._capacity = capacity
        self._heads: OrderedDict[str, RewardHeads] = OrderedDict()
        self._live = ""
        self._lock = threading.Lock()

    def stage(self, announcement: Announcement, folder: Path) -> None:
        """Loads a verified release beside the live one. Raises FailedPrecondition where it reads other features."""
        heads = load_heads(folder)
        if heads.features != self._feature_count:
            raise FailedPrecondition(
                f"reward model {announcement.version} reads {heads.features} features, the base model gives "
                f"{self._feature_count}. Train the reward model on this base.",
                reason="WRONG_FEATURES",
            )
        with self._lock:
            self._heads[announcement.version] = heads
            self._heads.move_to_end(announcement.version)
            self._make_room(keep=announcement.version)

    def flip(self, announcement: Announcement) -> None:
        """Makes a staged version live. Raises FailedPrecondition where it is not resident."""
        version = announcement.version
        with self._lock:
            if version not in self._heads:
                raise FailedPrecondition(f"reward model {version} is not staged", reason="NOT_RESIDENT")
            self._live = version

    @property
    def live_version(self) -> str:
        """The version that scores unless another is asked for; "": none yet."""
        return self._live

    @property
    def versions(self) -> tuple[str, ...]:
        """All that can score, least recently used first."""
        with self._lock:
            return tuple(self._heads)

    def get(self, version: str = "") -> tuple[str, RewardHeads]:
        """A version (empty: the live one) and its heads. Raises FailedPrecondition where it is not resident."""
        with self._lock:
            wanted = version or self._live
            heads = self._heads.get(wanted)
            if heads is None:
                raise FailedPrecondition(
                    f"reward model {wanted or '(live)'} is not resident, but {', '.join(self._heads) or 'none'}. "
                    "Wait until it is staged, or leave `reward_model_version` empty for the live one.",
                    reason="NOT_RESIDENT",
                    field="reward_model_version",
                    retry_after=1.0,
                )
            self._heads.move_to_end(wanted)
            return wanted, heads

    def _make_room(self, *, keep: str) -> None:
        for version in list(self._heads):
            if len(self._heads) <= self._capacity:
                return
            if version not in (self._live, keep):
                del self._heads[version]
