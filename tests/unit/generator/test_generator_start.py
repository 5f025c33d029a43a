"""A generator that cannot start ends: its engine's threads would keep the process, and nobody would start it again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from services.embedded.ports import free_port
from services.generator import main
from services.generator.engines.scripted import ScriptedEngine
from services.generator.engines.scripted_language import ScriptedTokenizer
from services.shared.bus.memory import MemoryBus
from services.shared.ids import utc_now
from services.shared.settings import Settings


class ThreadedEngine(ScriptedEngine):
    """Has a thread that lives until the engine is stopped, as the one that decodes."""

    def __init__(self) -> None:
        super().__init__(clock=utc_now)
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._stopped.wait, name="decoding", daemon=True)

    async def start(self) -> None:
        await super().start()
        self.thread.start()

    async def stop(self) -> None:
        await super().stop()
        self._stopped.set()
        self.thread.join(30.0)


async def test_an_engine_is_stopped_where_the_room_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue's file is a folder."""
    settings = Settings.model_validate(
        {"deployment": {"data_dir": tmp_path}, "generator": {"engine": "scripted", "metrics_port": free_port()}}
    )
    (tmp_path / "generator" / settings.generator.replica_id / "rollouts.db").mkdir(parents=True)
    engine = ThreadedEngine()

    def made(*_: Any) -> tuple[ScriptedEngine, ScriptedTokenizer]:
        return engine, ScriptedTokenizer()

    monkeypatch.setattr(main, "make_engine", made)
    monkeypatch.setattr(main, "open_bus", lambda _: MemoryBus())
    with pytest.raises(Exception, match="unable to open"):
        await main._serve(settings)
    assert not engine.thread.is_alive()
