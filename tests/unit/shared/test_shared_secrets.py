"""Keys on disk: made once, private, one a use, and a clear word when a file is damaged."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.shared.domain.errors import Misconfigured
from services.shared.secrets import KeyUse, load_or_create


def clock() -> datetime:
    return datetime(2026, 11, 22, tzinfo=UTC)


def test_a_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = load_or_create(folder, KeyUse.RATER, clock)
    assert load_or_create(folder, KeyUse.RATER, clock) == first
    path = folder / "rater-pseudonym.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == [path], "no temporary file is left"


def test_uses_share_no_secret(tmp_path: Path) -> None:
    keys = [load_or_create(tmp_path, use, clock).newest for use in KeyUse]
    assert len({key.secret for key in keys}) == len({key.id for key in keys}) == len(KeyUse)
    assert all(len(key.secret) == 32 for key in keys)


def test_gateways_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: load_or_create(tmp_path, KeyUse.PROMPT, clock), range(32)))
    assert all(ring == rings[0] for ring in rings)


def test_the_newest_key_comes_first(tmp_path: Path) -> None:
    load_or_create(tmp_path, KeyUse.PROMPT, clock)
    path = tmp_path / "prompt-id.json"
    document = json.loads(path.read_text())
    newer = {**document["keys"][0], "id": "newer", "created_time": "2026-12-01T00:00:00+00:00"}
    path.write_text(json.dumps({**document, "keys": [*document["keys"], newer]}))
    ring = load_or_create(tmp_path, KeyUse.PROMPT, clock)
    assert ring.newest.id == "newer" and len(ring.keys) == 2
    assert ring.by_id(document["keys"][0]["id"]) is not None and ring.by_id("none") is None


@pytest.mark.parametrize(
    "content", ["", "{", "{}", '{"use": "rater-pseudonym", "keys": []}', '{"use": "prompt-id", "keys": []}', "[1]"]
)
def test_a_damaged_file_is_told_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompt-id.json"
    path.write_text(content)
    with pytest.raises(Misconfigured, match="Restore it from a backup"):
        load_or_create(tmp_path, KeyUse.PROMPT, clock)
    assert path.read_text() == content


def test_a_time_without_zone_is_told(tmp_path: Path) -> None:
    """Alone, and beside one that has a zone: the two cannot be put in order."""
    load_or_create(tmp_path, KeyUse.PROMPT, clock)
    path = tmp_path / "prompt-id.json"
    document = json.loads(path.read_text())
    naive = {**document["keys"][0], "id": "naive", "created_time": "2026-12-01T00:00:00"}
    for keys in ([naive], [*document["keys"], naive]):
        path.write_text(json.dumps({**document, "keys": keys}))
        with pytest.raises(Misconfigured, match="created_time of naive has no time zone"):
            load_or_create(tmp_path, KeyUse.PROMPT, clock)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="THUMBLOOP_DEPLOYMENT__SECRETS_DIR"):
        load_or_create(tmp_path / "file", KeyUse.PROMPT, clock)


def test_secrets_do_not_show_in_logs(tmp_path: Path) -> None:
    ring = load_or_create(tmp_path, KeyUse.RATER, clock)
    assert "secret" not in repr(ring)
