"""One suite for every kind of checkpoint store: local files, and S3 as a server on loopback speaks it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import LocalStore, ObjectStore, S3Store

from services.shared.checkpoints import MANIFEST_NAME, CheckpointStore, Manifest, release_path
from services.shared.domain.errors import Conflict, Corrupt, InvalidInput, NotFound
from services.shared.domain.release import ReleaseKind

MANIFEST = Manifest(
    version="p-0001-000003-1a2b3c4d",
    kind=ReleaseKind.POLICY,
    epoch=1,
    number=3,
    parent_version="p-0001-000002-0a0b0c0d",
    base_model_name="base",
    base_model_digest="ab" * 32,
    rollout_ids=("r1", "r2"),
    feedback_ids=("f1",),
    reward_model_version="rm-0001-000001-11111111",
    settings={"clip": 0.2, "nested": {"dtype": "bf16"}},
    metrics={"kl_per_answer": 1.5},
    created_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
PATH = release_path(MANIFEST.kind, epoch=MANIFEST.epoch, version=MANIFEST.version)
BIG = bytes(range(256)) * 4096 * 9
"""9 MiB: more than one chunk, and past the size at which clients turn to multipart uploads."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The store under test, and a way around it to the bare objects."""

    store: CheckpointStore
    objects: ObjectStore

    def names(self) -> set[str]:
        return {entry["path"] for page in obstore.list(self.objects) for entry in page}


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def s3_backend(endpoint: str, bucket: str) -> Backend:
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=10).close()
    config: Any = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
        "virtual_hosted_style_request": False,
    }
    url = f"s3://{bucket}/some/prefix"
    objects = S3Store.from_url(url, config=config, client_options={"allow_http": True})
    return Backend(store=CheckpointStore(url, s3=config), objects=objects)


@pytest.fixture(params=["local", "s3"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "s3":
        name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
        return s3_backend(request.getfixturevalue("s3_endpoint"), name)
    root = tmp_path / "check points"
    return Backend(store=CheckpointStore(root.as_uri()), objects=LocalStore(root))


def put(backend: Backend) -> str:
    _, sha256 = backend.store.put_release(
        PATH, {"adapter.safetensors": BIG, "trainer/rng.json": b'{"seed":0}'}, MANIFEST
    )
    return sha256


def test_a_release_comes_back_as_it_was(backend: Backend, tmp_path: Path) -> None:
    on_disk = tmp_path / "adapter.safetensors"
    on_disk.write_bytes(BIG)
    stored, sha256 = backend.store.put_release(
        PATH, {"adapter.safetensors": on_disk, "trainer/rng.json": b'{"seed":0}'}, MANIFEST
    )
    assert stored.files["adapter.safetensors"].size == len(BIG)
    assert backend.store.read_manifest(PATH, sha256) == stored
    assert replace(stored, files={}) == MANIFEST
    into = tmp_path / "in" / "folder"
    assert backend.store.fetch(PATH, sha256, into) == stored
    assert (into / "adapter.safetensors").read_bytes() == BIG
    assert (into / "trainer" / "rng.json").read_bytes() == b'{"seed":0}'
    assert hashlib.sha256((into / MANIFEST_NAME).read_bytes()).hexdigest() == sha256
    assert [path.name for path in into.parent.iterdir()] == ["folder"]


def test_the_same_again_changes_nothing(backend: Backend) -> None:
    assert put(backend) == put(backend)


def test_a_writer_that_died_half_way_may_go_on(backend: Backend) -> None:
    obstore.put(backend.objects, f"{PATH}/adapter.safetensors", BIG)
    assert backend.store.read_manifest(PATH, put(backend)).files["adapter.safetensors"].size == len(BIG)


def test_other_content_under_a_taken_name_is_a_conflict_and_changes_nothing(backend: Backend, tmp_path: Path) -> None:
    sha256 = put(backend)
    with pytest.raises(Conflict, match=r"adapter\.safetensors"):
        backend.store.put_release(PATH, {"adapter.safetensors": b"other"}, MANIFEST)
    with pytest.raises(Conflict, match=r"manifest\.json"):
        backend.store.put_release(PATH, {"adapter.safetensors": BIG}, replace(MANIFEST, number=4))
    assert backend.store.fetch(PATH, sha256, tmp_path / "into").number == 3


def test_without_a_manifest_a_release_is_not_there(backend: Backend, tmp_path: Path) -> None:
    obstore.put(backend.objects, f"{PATH}/adapter.safetensors", BIG)
    with pytest.raises(NotFound):
        backend.store.fetch(PATH, "0" * 64, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_the_manifest_is_written_last(backend: Backend) -> None:
    """A file that cannot be written leaves no manifest behind."""
    obstore.put(backend.objects, f"{PATH}/trainer/rng.json", b"foreign")
    with pytest.raises(Conflict):
        put(backend)
    assert f"{PATH}/{MANIFEST_NAME}" not in backend.names()


def flip_a_bit(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    "fault",
    [flip_a_bit, lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""],
    ids=["altered", "shorter", "longer", "empty"],
)
@pytest.mark.parametrize("name", ["adapter.safetensors", "trainer/rng.json", MANIFEST_NAME])
def test_altered_bytes_are_corrupt_and_no_folder_appears(
    backend: Backend, tmp_path: Path, name: str, fault: Callable[[bytes], bytes]
) -> None:
    sha256 = put(backend)
    data = bytes(obstore.get(backend.objects, f"{PATH}/{name}").bytes())
    obstore.put(backend.objects, f"{PATH}/{name}", fault(data))
    with pytest.raises(Corrupt):
        backend.store.fetch(PATH, sha256, tmp_path / "into")
    assert list(tmp_path.glob("*into*")) == []


def test_a_missing_file_is_corrupt(backend: Backend, tmp_path: Path) -> None:
    sha256 = put(backend)
    obstore.delete(backend.objects, f"{PATH}/trainer/rng.json")
    with pytest.raises(Corrupt, match=r"rng\.json is missing"):
        backend.store.fetch(PATH, sha256, tmp_path / "into")


def test_only_named_files_and_none_that_the_release_lacks(backend: Backend, tmp_path: Path) -> None:
    sha256 = put(backend)
    into = tmp_path / "into"
    manifest = backend.store.fetch(PATH, sha256, into, names=["trainer/rng.json", "heads.json"])
    assert set(manifest.files) == {"adapter.safetensors", "trainer/rng.json"}
    assert sorted(path.name for path in into.rglob("*") if path.is_file()) == [MANIFEST_NAME, "rng.json"]


def test_a_release_without_files(backend: Backend, tmp_path: Path) -> None:
    _, sha256 = backend.store.put_release(PATH, {}, MANIFEST)
    backend.store.fetch(PATH, sha256, tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").iterdir()] == [MANIFEST_NAME]


def test_a_folder_that_is_there_is_checked_and_put_right(backend: Backend, tmp_path: Path) -> None:
    sha256 = put(backend)
    into = tmp_path / "into"
    backend.store.fetch(PATH, sha256, into)
    inode = into.stat().st_ino
    backend.store.fetch(PATH, sha256, into)
    assert into.stat().st_ino == inode
    (into / "adapter.safetensors").write_bytes(b"altered on disk")
    backend.store.fetch(PATH, sha256, into)
    assert (into / "adapter.safetensors").read_bytes() == BIG


@pytest.mark.parametrize("path", ["", "/etc", "a/../../b", "a//b", "..", "a\\b", "./a"])
def test_paths_do_not_leave_the_store(backend: Backend, tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInput):
        backend.store.put_release(path, {}, MANIFEST)
    with pytest.raises(InvalidInput):
        backend.store.fetch(path, "0" * 64, tmp_path / "into")
    with pytest.raises(InvalidInput):
        backend.store.put_release(PATH, {path: b""}, MANIFEST)
