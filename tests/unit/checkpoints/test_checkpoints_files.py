"""Manifests, digests, and what is true of local files alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.shared.checkpoints import (
    CheckpointStore,
    FileDigest,
    Manifest,
    base_model_digest,
    content_digest,
    digests_of,
    file_digest,
)
from services.shared.checkpoints import digests as digests_module
from services.shared.domain.errors import Corrupt, InvalidInput, Misconfigured, Unavailable
from services.shared.domain.release import ReleaseKind

MANIFEST = Manifest(
    version="rm-0001-000001-1a2b3c4d",
    kind=ReleaseKind.REWARD_MODEL,
    epoch=1,
    number=1,
    parent_version="",
    base_model_name="base",
    base_model_digest="ab" * 32,
    files={"heads.json": FileDigest(sha256="0" * 64, size=2)},
    rollout_ids=("é", "r2"),
    settings={"b": 1, "a": [1, None, True]},
    metrics={"auroc": 0.75},
    created_time=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
)


def test_a_manifest_comes_back_equal_and_its_bytes_are_canonical() -> None:
    data = MANIFEST.to_json()
    assert Manifest.from_json(data) == MANIFEST
    reordered = replace(MANIFEST, settings={"a": [1, None, True], "b": 1})
    assert reordered.to_json() == data
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("metrics", [{"kl": float("nan")}, {"kl": float("inf")}])
def test_numbers_that_json_lacks_are_refused(metrics: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        replace(MANIFEST, metrics=metrics).to_json()


def test_objects_are_not_written() -> None:
    with pytest.raises(InvalidInput):
        replace(MANIFEST, settings={"model": object()}).to_json()


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{}", b"\x80\x04K\x01.", b"{" * 10_000],
    ids=["empty", "list", "null", "no fields", "pickle", "deep"],
)
def test_what_is_no_manifest_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Manifest.from_json(data)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../b", ""])
def test_a_manifest_cannot_name_files_outside_its_folder(name: str) -> None:
    value = json.loads(MANIFEST.to_json())
    value["files"] = {name: {"sha256": "0" * 64, "size": 1}}
    with pytest.raises(Corrupt):
        Manifest.from_json(json.dumps(value).encode())


def test_an_unknown_format_is_corrupt() -> None:
    value = json.loads(MANIFEST.to_json())
    value["format"] = 2
    with pytest.raises(Corrupt, match="format 2"):
        Manifest.from_json(json.dumps(value).encode())


def test_the_content_digest_depends_on_names_and_bytes_not_on_order(tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"2")
    one = content_digest(digests_of({"a": b"1", "b": file}))
    assert one == content_digest(digests_of({"b": b"2", "a": b"1"}))
    assert one != content_digest(digests_of({"a": b"2", "b": b"1"}))
    assert file_digest(file) == file_digest(b"2")


@pytest.mark.parametrize("url", ["", "checkpoints", "http://host/x", "file://host/x", "s3://", "/tmp/x"])
def test_other_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"file:///"):
        CheckpointStore(url)


def test_an_unreachable_s3_is_unavailable_within_its_deadline() -> None:
    store = CheckpointStore(
        "s3://bucket/prefix",
        s3={"endpoint": "http://127.0.0.1:9", "access_key_id": "x", "secret_access_key": "y", "region": "us-east-1"},
    )
    with pytest.raises(Unavailable) as info:
        store.read_manifest("policy/1/v", "0" * 64)
    assert info.value.retry_after


def test_local_files_are_synced_before_the_manifest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store = CheckpointStore(tmp_path.as_uri())
    store.put_release("policy/1/v", {"heads.json": b"{}"}, replace(MANIFEST, files={}))
    assert synced.index("heads.json") < synced.index("v") < synced.index("manifest.json")
    assert synced[-1] == tmp_path.name


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "tokenizer.json": b"t",
        "README.md": b"words",
    }.items():
        (folder / name).write_bytes(data)
    return folder


def test_the_base_model_digest_is_of_what_decides_log_probs(model_dir: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "digests.json"
    before = base_model_digest(model_dir, cache)
    (model_dir / "README.md").write_bytes(b"other words")
    assert base_model_digest(model_dir, cache) == before
    (model_dir / "model.safetensors").write_bytes(b"other weights")
    assert base_model_digest(model_dir, cache) != before


def test_unchanged_weights_are_read_once(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "digests.json"
    before = base_model_digest(model_dir, cache)

    def never(source: Path | bytes) -> FileDigest:
        raise AssertionError(f"{source!r} was read again")

    monkeypatch.setattr(digests_module, "file_digest", never)
    assert base_model_digest(model_dir, cache) == before


def test_a_broken_cache_is_made_again(model_dir: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    before = base_model_digest(model_dir, cache)
    cache.write_bytes(b"{half")
    assert base_model_digest(model_dir, cache) == before
    assert len(json.loads(cache.read_bytes())) == 3


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="safetensors"):
        base_model_digest(tmp_path, tmp_path / "cache.json")
