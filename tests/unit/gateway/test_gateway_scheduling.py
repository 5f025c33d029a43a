"""The policy reaches every later thread, and its absence stops nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from services.gateway import scheduling

LATER_THREAD = """
    import os, threading
    from services.gateway.scheduling import let_threads_finish_their_turns
    let_threads_finish_their_turns()
    has_it = lambda: not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) == os.SCHED_BATCH
    threading.Thread(target=lambda: print(has_it())).start()
"""


def test_later_threads_have_it() -> None:
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LATER_THREAD)], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "True\n"


def test_a_system_that_forbids_it_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def forbid(_process: int, policy: int, _param: object) -> None:
        asked.append(policy)
        raise PermissionError

    monkeypatch.setattr(os, "SCHED_BATCH", 3, raising=False)
    monkeypatch.setattr(os, "sched_param", int, raising=False)
    monkeypatch.setattr(os, "sched_setscheduler", forbid, raising=False)
    scheduling.let_threads_finish_their_turns()
    assert asked == [3]


def test_a_system_without_it_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.delattr(os, "SCHED_BATCH", raising=False)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *policy: asked.append(policy), raising=False)
    scheduling.let_threads_finish_their_turns()
    assert asked == []
