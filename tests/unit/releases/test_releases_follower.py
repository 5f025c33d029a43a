from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.shared.bus.interface import Place
from services.shared.checkpoints import PARTIAL_SUFFIX
from services.shared.contracts.policies import encode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.errors import Unavailable
from services.shared.domain.release import AnnouncementReason, ReleaseKind
from tests.unit.releases.follower_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_release_is_staged_flipped_and_acknowledged_in_this_order(world: World) -> None:
    release = world.release(1)
    world.announce(release)
    world.steps()
    assert world.target.calls == [("stage", release.version), ("flip", release.version)]
    assert world.follower.status.live == release
    [acknowledged] = world.acknowledged
    assert (acknowledged.version, acknowledged.epoch, acknowledged.sequence) == (release.version, 1, 1)
    assert acknowledged.stage_error == ""


def test_the_target_sees_all_verified_files(world: World) -> None:
    release = world.release(1)
    world.announce(release)
    world.steps()
    assert world.target.files[release.version] == ["adapter.safetensors", "manifest.json", "trainer/rng.json"]


def test_only_the_named_files_are_fetched(tmp_path: Path) -> None:
    world = World(tmp_path, names=["adapter.safetensors", "adapter.json"])
    release = world.release(1)
    world.announce(release)
    world.steps()
    assert world.target.files[release.version] == ["adapter.safetensors", "manifest.json"]


def test_release_0_of_the_policy_has_no_files_and_stages_too(world: World) -> None:
    base = world.release(0)
    world.announce(base)
    world.steps()
    assert world.target.serves == base.version
    assert world.target.files[base.version] == ["manifest.json"]
    assert world.follower.caught_up


def test_a_restart_reads_to_the_end_and_stages_the_last_word_alone(world: World) -> None:
    releases = [world.release(number) for number in range(8)]
    for number, release in enumerate(releases):
        world.announce(release, partition=number % 3)
    world.follower.step()
    assert world.target.calls == []
    assert not world.follower.caught_up
    world.steps()
    assert world.target.calls == [("stage", releases[7].version), ("flip", releases[7].version)]
    assert world.follower.caught_up


def test_nothing_announced_is_not_caught_up(world: World) -> None:
    world.steps()
    assert not world.follower.caught_up
    assert not world.follower.wait_caught_up(0)


def test_the_epoch_decides_before_the_sequence(world: World) -> None:
    new_leader = world.release(2, epoch=2, sequence=5)
    late_writer = world.release(9, epoch=1, sequence=9)
    world.announce(new_leader)
    world.steps()
    world.announce(late_writer, partition=1)
    world.steps()
    assert world.target.serves == new_leader.version
    assert ("stage", late_writer.version) not in world.target.calls


def test_releases_of_the_other_kind_are_not_its_business(world: World) -> None:
    world.announce(world.release(5, kind=ReleaseKind.REWARD_MODEL))
    world.steps()
    assert world.target.calls == []
    assert not world.follower.caught_up


def test_a_repeat_is_acknowledged_and_not_staged_again(world: World) -> None:
    release = world.release(1)
    world.announce(release)
    world.steps()
    world.announce(replace(release, sequence=2, reason=AnnouncementReason.REPEAT))
    world.steps()
    assert world.target.calls == [("stage", release.version), ("flip", release.version)]
    assert [a.sequence for a in world.acknowledged] == [1, 2]
    assert world.follower.status.live is not None
    assert world.follower.status.live.sequence == 2


def test_the_same_event_again_changes_nothing(world: World) -> None:
    release = world.release(1)
    world.announce(release)
    world.steps()
    world.announce(release, partition=2)
    world.steps()
    assert len(world.acknowledged) == 1
    assert len(world.target.calls) == 2


def test_a_rollback_is_a_new_announcement_of_an_old_version(world: World) -> None:
    first, second = world.release(1), world.release(2)
    world.announce(first)
    world.steps()
    world.announce(second)
    world.steps()
    world.announce(replace(first, sequence=3, reason=AnnouncementReason.ROLLBACK))
    world.steps()
    assert [call for call in world.target.calls if call[0] == "flip"] == [
        ("flip", first.version),
        ("flip", second.version),
        ("flip", first.version),
    ]


def test_a_failed_stage_keeps_the_old_version_and_says_so(world: World) -> None:
    first, second = world.release(1), world.release(2)
    world.announce(first)
    world.steps()
    world.target.stage_error = RuntimeError("out of memory")
    world.announce(second)
    world.steps()
    assert world.target.serves == first.version
    assert world.follower.status.live == first
    assert "out of memory" in world.follower.status.stage_error
    assert world.acknowledged[-1].version == second.version
    assert "out of memory" in world.acknowledged[-1].stage_error
    assert world.metrics.value("thumbloop_release_stage_failures_total", kind="policy", reason="FAULT") == 1


def test_a_failed_flip_is_a_failed_stage(world: World) -> None:
    world.target.flip_error = RuntimeError("engine gone")
    release = world.release(1)
    world.announce(release)
    world.steps()
    assert not world.follower.caught_up
    world.target.flip_error = None
    world.clock.now += 1.0
    world.steps()
    assert world.target.serves == release.version


def test_staging_is_tried_again_with_growing_waits_while_the_store_is_away(world: World) -> None:
    release = world.release(1)
    world.announce(release)
    world.source.away = True
    attempts = []
    for _ in range(16):  # seconds
        world.steps(2)
        attempts.append(len(world.acknowledged))
        world.clock.now += 1.0
    assert attempts == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6]
    world.source.away = False
    world.clock.now += 4.0
    world.steps()
    assert world.target.serves == release.version
    assert world.follower.status.stage_error == ""
    assert world.acknowledged[-1].stage_error == ""
    assert world.follower.caught_up


def test_a_newer_announcement_takes_the_place_of_a_failing_one_at_once(world: World) -> None:
    bad, good = world.release(1), world.release(2)
    world.announce(bad)
    shutil.rmtree(world.root / "checkpoints" / bad.checkpoint_path)
    world.steps()
    assert world.acknowledged[-1].stage_error
    world.announce(good)  # the clock stands still: no wait of the old one may hold it up
    world.steps()
    assert world.target.serves == good.version
    assert world.follower.status.stage_error == ""


def test_an_altered_byte_is_never_staged(world: World) -> None:
    release = world.release(1)
    world.announce(release)
    file = world.root / "checkpoints" / release.checkpoint_path / "adapter.safetensors"
    file.write_bytes(b"weights 2")
    world.steps()
    assert world.target.calls == []
    assert world.metrics.value("thumbloop_release_stage_failures_total", kind="policy", reason="FILE_ALTERED") == 1


def test_a_release_under_another_name_is_refused(world: World) -> None:
    one, two = world.release(1), world.release(2)
    world.announce(replace(one, checkpoint_path=two.checkpoint_path, manifest_sha256=two.manifest_sha256))
    world.steps()
    assert world.target.calls == []
    assert two.version in world.acknowledged[-1].stage_error


def test_a_release_of_another_base_model_is_refused(world: World) -> None:
    world.announce(replace(world.release(1), base_model_digest="cd" * 32))
    world.steps()
    assert world.target.calls == []
    assert "base model" in world.acknowledged[-1].stage_error


def test_broken_and_unknown_events_are_skipped_and_stop_nothing(world: World) -> None:
    release = world.release(1)
    world.log.append(b"\xff\xff no protobuf")
    world.log.append(b"")
    foreign = replace(release, sequence=99, meta=replace(release.meta, deployment="elsewhere"))
    world.log.append(encode_announcement(foreign))
    world.announce(release)
    world.steps()
    assert world.target.serves == release.version
    skipped = sum(
        sample.value
        for metric in world.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "thumbloop_release_skipped_events_total"
    )
    assert skipped == 3


def test_the_broker_away_raises_and_the_next_step_begins_again(world: World) -> None:
    first, second = world.release(1), world.release(2)
    world.announce(first)
    world.steps()
    world.log.bus.go_away()
    with pytest.raises(Unavailable):
        world.follower.step()
    world.log.bus.come_back()
    with pytest.raises(Unavailable, match="closed"):
        world.log.readers[0].poll(0)
    world.announce(second)
    world.steps()
    assert world.target.serves == second.version
    assert [call for call in world.target.calls if call[0] == "stage"] == [
        ("stage", first.version),
        ("stage", second.version),
    ]


def test_added_partitions_are_found(world: World) -> None:
    world.announce(world.release(1))
    world.steps()
    second = world.release(2)
    world.announce(second, partition=world.log.add_partition())
    world.clock.now += 31.0
    world.steps()
    assert world.target.serves == second.version


def test_folders_on_disk_are_bounded_and_the_live_one_stays(world: World) -> None:
    for number in range(1, 6):
        world.announce(world.release(number))
        world.steps()
    live = world.follower.status.live
    assert live is not None
    assert live.version in world.staged_folders()
    assert len(world.staged_folders()) == 2


def test_what_a_killed_process_left_half_downloaded_is_removed(world: World) -> None:
    left = world.root / "staged" / "policy" / f".p-old.123{PARTIAL_SUFFIX}"
    left.mkdir(parents=True)
    (left / "adapter.safetensors").write_bytes(b"half")
    world.announce(world.release(1))
    world.steps()
    assert not left.exists()


def test_metrics_name_the_live_version_alone(world: World) -> None:
    first, second = world.release(1), world.release(2)
    for release in (first, second):
        world.announce(release)
        world.steps()
    assert world.metrics.value("thumbloop_release_info", kind="policy", version=second.version) == 1
    assert world.metrics.value("thumbloop_release_info", kind="policy", version=first.version) is None
    assert world.metrics.value("thumbloop_release_flips_total", kind="policy") == 2


def test_its_thread_outlives_an_absent_broker(world: World) -> None:
    """Real time: the follower starts before the broker, and catches up when it comes."""
    release = world.release(1)
    world.announce(release)
    world.log.bus.go_away()
    world.follower.start()
    try:
        assert not world.follower.wait_caught_up(0.05)
        world.log.bus.come_back()
        assert world.follower.wait_caught_up(10.0)
        assert world.target.serves == release.version
    finally:
        world.follower.stop()
        world.follower.stop()
    for reader in world.log.readers:
        with pytest.raises(Unavailable, match="closed"):
            reader.poll(0)


def test_a_log_that_lost_its_tail_is_read_again_from_the_beginning(world: World) -> None:
    """An embedded broker may do that when it is killed; the last word, said again, is heard."""
    first, second, third = world.release(1), world.release(2), world.release(3)
    for release in (first, second):
        world.announce(release)
    world.steps()
    world.log.bus.truncate_after(Place(POLICIES, 0), 0)
    world.steps()
    assert world.target.serves == second.version
    world.announce(third)
    world.steps()
    assert world.target.serves == third.version
