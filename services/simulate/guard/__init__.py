"""The guard: what makes approval worth something.

A policy can please a taste and be worthless ("I'm glad you're here!" to everything). So an answer counts only if it is
fluent under the frozen base model, to the prompt and not looping. The reward model never sees the guard.

``verdict`` judges (pure), ``thresholds`` holds the committed bounds, ``scorer`` measures answers with the base model,
``calibrate`` makes the bounds anew. The last, with ``scorer`` and ``sampling``, needs
torch, so these are not imported here.
"""

from __future__ import annotations

from services.simulate.guard.thresholds import Calibration, load_calibration
from services.simulate.guard.verdict import AnswerStatistics, Fault, Thresholds, Verdict, judge

__all__ = ["AnswerStatistics", "Calibration", "Fault", "Thresholds", "Verdict", "judge", "load_calibration"]
