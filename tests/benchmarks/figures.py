"""How a benchmark keeps its figures: `.bench/NAME.json`, written only by a run that ended well."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path


def write_figures(
    name: str,
    figures: Mapping[str, float],
    aims: Mapping[str, str],
    *,
    seconds: float,
    machine: Mapping[str, str] | None = None,
) -> Path:
    """Writes and returns the file. `machine`: what else the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=10, check=True
    ).stdout.strip()
    content = {
        "name": name,
        "figures": dict(figures),
        "aims": dict(aims),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            **(machine or {}),
        },
        "commit": commit,
        "seconds": round(seconds, 1),
    }
    path = Path(".bench") / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
