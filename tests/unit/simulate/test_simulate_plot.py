"""A run's picture: drawn from whatever was observed, refused where there is nothing."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from services.simulate.plot import HeldOut, ReleasePoint, plot_run


def _size(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize("releases", [1, 3, 40])
def test_a_run_is_drawn_whatever_its_length(tmp_path: Path, releases: int) -> None:
    points = [
        ReleasePoint(
            version=f"p{i}", time_s=60.0 * i, thumbs_up_rate=0.5, thumbs=20, reward=0.1, kl=0.2 * i, staleness=1
        )
        for i in range(releases)
    ]
    path = tmp_path / "new" / "run.png"
    plot_run(points, path, title="run", held_out=HeldOut(before=0.3, before_error=0.05, after=0.7, after_error=0.05))
    assert _size(path) == (1500, 1080)


def test_what_was_not_observed_is_left_out(tmp_path: Path) -> None:
    points = [
        ReleasePoint(version="base", time_s=0.0),
        ReleasePoint(version="p1", time_s=9.0, reward=math.nan, thumb_to_token_s=math.inf),
    ]
    plot_run(points, tmp_path / "run.png", title="run")
    assert _size(tmp_path / "run.png") == (1500, 1080)


def test_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one release"):
        plot_run([], tmp_path / "run.png", title="run")
