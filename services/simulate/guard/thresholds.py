"""The committed bounds of the guard, with where they come from (``calibration.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from services.simulate.guard.verdict import Thresholds

CALIBRATION_FILE = Path(__file__).with_name("calibration.json")
"""Lies inside the package, so the wheel has it; ``python -m services.simulate.guard.calibrate`` rewrites it."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The bounds, what they do to known answers, and all it takes to make them again.

    ``outcomes``: shares, measured on held-out prompts: ``base_passing`` of the base model's own answers, and
    ``<kind>_failing`` of each kind of answer that ought to fail (see ``controls``).
    ``provenance``: model digest, sampling, sample sizes and versions.
    """

    thresholds: Thresholds
    outcomes: Mapping[str, float]
    provenance: Mapping[str, object]


def load_calibration(path: Path = CALIBRATION_FILE) -> Calibration:
    """Read a calibration. Raises ``ValueError`` where the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(
            thresholds=Thresholds(**content["thresholds"]),
            outcomes=content["outcomes"],
            provenance=content["provenance"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        hint = "make it anew with: python -m services.simulate.guard.calibrate"
        raise ValueError(f"{path} is no calibration of the guard ({error!r}); {hint}") from error


def save_calibration(calibration: Calibration, path: Path = CALIBRATION_FILE) -> None:
    """Write a calibration as ``load_calibration`` reads it."""
    path.write_text(json.dumps(asdict(calibration), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
