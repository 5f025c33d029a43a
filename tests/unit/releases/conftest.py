from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("follower_world", Path(__file__).with_name("follower_world.py"))
assert _spec is not None
assert _spec.loader is not None
follower_world = importlib.util.module_from_spec(_spec)
sys.modules["follower_world"] = follower_world
_spec.loader.exec_module(follower_world)


@pytest.fixture
def world(tmp_path: Path) -> object:
    return follower_world.World(tmp_path)
