"""The rooms' own credential: shared by a folder, rotated without a restart."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.shared.access import ServiceCredential, mint_key
from services.shared.access.bearer import presented
from services.shared.followed_ring import LOOK_AGAIN_S, SETTLE

START = datetime(2026, 11, 22, tzinfo=UTC)


class Time:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def credential(folder: Path, time: Time) -> ServiceCredential:
    return ServiceCredential(folder, clock=time.clock, monotonic=time.monotonic)


def secret_of(one: ServiceCredential) -> str:
    return presented(one.authorization())


def rewrite(folder: Path, *key_ids: str, created: dict[str, datetime]) -> None:
    """A ring with exactly these keys; those that it has already stay as they are."""
    path = folder / "service.json"
    document = json.loads(path.read_text())
    known = {entry["id"]: entry for entry in document["keys"]}
    secret = base64.b64encode(b"s" * 32).decode()
    entries = [
        known.get(key_id) or {"id": key_id, "secret": secret, "created_time": created[key_id].isoformat()}
        for key_id in key_ids
    ]
    path.write_text(json.dumps({**document, "keys": entries}))


def test_rooms_with_one_folder_know_one_another(tmp_path: Path) -> None:
    time = Time()
    one, two = credential(tmp_path / "a", time), credential(tmp_path / "a", time)
    stranger = credential(tmp_path / "b", time)
    assert two.accepts(secret_of(one)) and one.accepts(secret_of(two))
    assert not one.accepts(secret_of(stranger))
    for wrong in ("", "ts_", secret_of(one)[:-1], secret_of(one) + "0", mint_key().text, "ts_ä"):
        assert not one.accepts(wrong)


def test_a_key_is_rotated_while_the_rooms_run(tmp_path: Path) -> None:
    """A new key is accepted at once, presented when it has settled; a removed one is refused."""
    time = Time()
    one, two = credential(tmp_path, time), credential(tmp_path, time)
    first = secret_of(one)
    first_id = first.split("_")[1]
    time.seconds = SETTLE.total_seconds() + 1
    rewrite(tmp_path, first_id, "k2", created={"k2": time.clock()})
    assert secret_of(one) == first
    time.seconds += LOOK_AGAIN_S
    second = f"ts_k2_{(b's' * 32).hex()}"
    assert two.accepts(first) and two.accepts(second)
    assert secret_of(one) == first, "others may not have seen the new key yet"
    time.seconds += SETTLE.total_seconds()
    assert secret_of(one) == secret_of(two) == second
    rewrite(tmp_path, "k2", created={})
    time.seconds += LOOK_AGAIN_S
    assert two.accepts(second) and not two.accepts(first)


def test_a_damaged_file_leaves_the_last_good_keys(tmp_path: Path) -> None:
    time = Time()
    one = credential(tmp_path, time)
    first = secret_of(one)
    (tmp_path / "service.json").write_text("{")
    time.seconds += LOOK_AGAIN_S
    assert one.accepts(first) and secret_of(one) == first
    (tmp_path / "service.json").unlink()
    time.seconds += LOOK_AGAIN_S
    assert one.accepts(first)
    assert not (tmp_path / "service.json").exists(), "a running room makes no key that the others lack"


def test_a_time_without_zone_is_told_and_stops_no_call(tmp_path: Path) -> None:
    """Neither when the key is added nor when it is the only one that is left."""
    time = Time()
    one = credential(tmp_path, time)
    first = secret_of(one)
    rewrite(tmp_path, first.split("_")[1], "k2", created={"k2": START.replace(tzinfo=None)})
    for _ in range(2):
        time.seconds += LOOK_AGAIN_S
        assert secret_of(one) == first and one.accepts(first)
    rewrite(tmp_path, "k2", created={})
    time.seconds += LOOK_AGAIN_S
    assert secret_of(one) == first
    path = tmp_path / "service.json"
    path.write_text(path.read_text().replace('00:00"', '00:00+00:00"'))
    time.seconds += LOOK_AGAIN_S
    assert secret_of(one) == f"ts_k2_{(b's' * 32).hex()}", "mended, it is read again"


def test_the_secret_does_not_show(tmp_path: Path) -> None:
    one = credential(tmp_path, Time())
    shown = repr(one) + repr(one.__dict__) + repr(one._ring.__dict__)
    assert secret_of(one) not in shown and secret_of(one).split("_")[2] not in shown
