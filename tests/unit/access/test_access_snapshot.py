"""The list of keys that a room has: on disk, damaged, old, absent; and whom it lets in."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.shared.access import AccessSnapshot, Scope, mint_key
from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.follower import AccessFollower
from services.shared.access.snapshot_file import SnapshotFile
from services.shared.access.wire import snapshot_from_proto, snapshot_to_proto
from services.shared.domain.errors import Unauthenticated, Unavailable
from tests.support.access import live_key, without
from tests.support.patience import eventually

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def two_keys() -> AccessSnapshot:
    _, one = live_key(Scope.CHAT, tenant="ä", name="Zoë")
    _, two = live_key(Scope.SCORE, Scope.FEEDBACK, expire_time=NOW)
    return AccessSnapshot.of([one, two])


def test_equal_contents_have_equal_digests() -> None:
    snapshot = two_keys()
    keys = list(snapshot.keys.values())
    assert AccessSnapshot.of(reversed(keys)).digest == snapshot.digest
    assert AccessSnapshot.of(keys[:1]).digest != snapshot.digest
    assert AccessSnapshot.of([]).digest != snapshot.digest


def test_a_snapshot_travels_unchanged() -> None:
    snapshot = two_keys()
    assert AccessSnapshot.from_bytes(snapshot.to_bytes()) == snapshot
    response = snapshot_to_proto(snapshot, known_digest="")
    assert (response.digest, response.unchanged) == (snapshot.digest, False)
    assert snapshot_from_proto(response) == snapshot
    known = snapshot_to_proto(snapshot, known_digest=snapshot.digest)
    assert known.unchanged and not known.keys


def test_the_copy_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "access" / "room.json"
    copy = SnapshotFile(path)
    assert copy.read() is None
    first, second = two_keys(), two_keys()
    for snapshot in (first, second):
        copy.write(snapshot)
        assert copy.read() == snapshot
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_every_damage_of_a_copy_is_seen() -> None:
    """Cut anywhere, or one character changed anywhere but in blanks: it is no snapshot."""
    whole = two_keys().to_bytes()
    damaged = [whole[:end] for end in range(len(whole) - 1)]
    for place, byte in enumerate(whole):
        if byte not in b" \n":
            damaged.append(whole[:place] + (b"7" if byte != ord("7") else b"8") + whole[place + 1 :])
    for data in damaged:
        with pytest.raises(ValueError, match="snapshot"):
            AccessSnapshot.from_bytes(data)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"digest": "", "keys": null}'])
def test_what_is_no_snapshot_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "room.json").write_bytes(content)
    assert SnapshotFile(tmp_path / "room.json").read() is None


def authenticator(snapshot: AccessSnapshot | None) -> KeyAuthenticator:
    return KeyAuthenticator(snapshot=lambda: snapshot, clock=lambda: NOW)


def test_a_live_key_names_its_principal() -> None:
    minted, key = live_key(Scope.CHAT, tenant="acme", expire_time=NOW + timedelta(microseconds=1))
    assert authenticator(AccessSnapshot.of([key])).authenticate(minted.text) == key.principal


def test_who_is_not_let_in_hears_why() -> None:
    minted, key = live_key(Scope.ADMIN)
    known = authenticator(AccessSnapshot.of([key]))
    expired_minted, expired = live_key(Scope.ADMIN, expire_time=NOW)
    with pytest.raises(Unauthenticated, match="unknown or was revoked"):
        known.authenticate(mint_key().text)
    other_secret = f"tl_{minted.key_id}_{'0' * 64}"
    with pytest.raises(Unauthenticated, match="unknown or was revoked"):
        known.authenticate(other_secret)
    with pytest.raises(Unauthenticated, match="expired at 2026-11-22T12:00:00"):
        authenticator(AccessSnapshot.of([expired])).authenticate(expired_minted.text)
    with pytest.raises(Unauthenticated, match="is no API key"):
        known.authenticate("none")


def test_without_a_snapshot_nobody_is_let_in() -> None:
    with pytest.raises(Unavailable, match="no list of API keys") as refused:
        authenticator(None).authenticate(mint_key().text)
    assert refused.value.retry_after


class Owner:
    """A learner that may be away."""

    def __init__(self, snapshot: AccessSnapshot) -> None:
        self.snapshot = snapshot
        self.away = False
        self.asked: list[str] = []

    def fetch(self, known_digest: str) -> AccessSnapshot | None:
        self.asked.append(known_digest)
        if self.away:
            raise Unavailable("away")
        return None if known_digest == self.snapshot.digest else self.snapshot


def test_a_follower_has_the_newest_and_starts_from_the_copy(tmp_path: Path) -> None:
    copy = SnapshotFile(tmp_path / "room.json")
    owner = Owner(two_keys())
    first = AccessFollower(fetch=owner.fetch, interval_s=1, copy=copy)
    assert first.snapshot is None
    first.step()
    assert first.snapshot == owner.snapshot
    first.step()
    assert owner.asked == ["", owner.snapshot.digest]
    owner.away = True
    again = AccessFollower(fetch=owner.fetch, interval_s=1, copy=copy)
    with pytest.raises(Unavailable):
        again.step()
    assert again.snapshot == owner.snapshot


def test_a_copy_that_cannot_be_written_does_not_keep_a_revoked_key_alive(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    owner = Owner(two_keys())
    follower = AccessFollower(fetch=owner.fetch, interval_s=1, copy=SnapshotFile(tmp_path / "file" / "room.json"))
    follower.step()
    revoked = next(iter(owner.snapshot.keys))
    owner.snapshot = AccessSnapshot.of(without(owner.snapshot.keys.values(), revoked))
    follower.step()
    assert follower.snapshot is not None and revoked not in follower.snapshot.keys


def test_a_followers_thread_looks_again_and_ends(tmp_path: Path) -> None:
    owner = Owner(two_keys())
    follower = AccessFollower(fetch=owner.fetch, interval_s=3600, copy=None)
    follower.start()
    eventually(lambda: follower.snapshot is not None, what="the first snapshot")
    owner.snapshot = AccessSnapshot.of([])
    follower.look_now()
    eventually(lambda: follower.snapshot == owner.snapshot, what="the changed snapshot, long before the interval ends")
    follower.stop()
    follower.stop()
