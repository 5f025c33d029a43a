"""The doctor sees what is missing and says how to mend it."""

from __future__ import annotations

import re
import socketserver
import threading
import tomllib
from pathlib import Path

import pytest

from services.cli import doctor
from services.embedded.ports import free_port

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_a_missing_package_is_found_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "ROOM_PACKAGES", {"gateway": ("no_such_package",)})
    (finding,) = doctor.check_packages()
    assert not finding.ok
    assert "no_such_package" in finding.detail
    assert finding.mend == "pip install 'thumbloop[gateway]'"
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    doctor.print_findings()
    assert finding.mend in capsys.readouterr().out


def test_the_packages_that_are_looked_for_are_those_of_the_extras() -> None:
    """Else a right installation is told that something is missing, or a wrong one that nothing is."""
    looked_for: set[str] = set()
    for room, packages in doctor.ROOM_PACKAGES.items():
        extras = doctor.EXTRAS[room].split(",")
        assert set(packages) <= brought_by(extras), f"{room}: its extras do not bring all that is looked for"
        assert set(packages) >= brought_by(extras, nested=False), f"{room}: a package of its extras is not looked for"
        looked_for |= set(packages)
    assert looked_for == brought_by(["local"]), "one machine needs every room"
    assert [finding.name for finding in doctor.check_packages() if not finding.ok] == []


def brought_by(extras: list[str], *, nested: bool = True) -> set[str]:
    """Packages as they are imported; `nested`: with those of the extras that an extra names."""
    table = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    found: set[str] = set()
    for requirement in (each for extra in extras for each in table[extra]):
        name, inner = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", requirement).groups()  # type: ignore[union-attr]
        if name != "thumbloop":
            found.add(name.replace("-", "_"))
        elif nested:
            found |= brought_by(inner.split(","))
    return found


def test_wrong_settings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBLOOP_LEARNER__SEED", "-1")
    finding = doctor.check_settings()
    assert not finding.ok
    assert "THUMBLOOP_LEARNER__SEED" in finding.detail


def test_a_model_path_that_is_no_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBLOOP_MODEL__PATH", "nowhere")
    assert not doctor.check_model().ok


def test_kafka_home_is_optional_and_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    finding = doctor.check_java_kafka()
    assert not finding.ok
    assert not finding.needed
    assert "KAFKA_HOME" in finding.mend


def test_something_needed_and_missing_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = doctor.Finding(name="x", ok=False, detail="gone", mend="bring it back")
    monkeypatch.setattr(doctor, "examine", lambda: [missing])
    assert doctor.print_findings() == 1
    optional = doctor.Finding(name="x", ok=False, detail="gone", mend="bring it back", needed=False)
    monkeypatch.setattr(doctor, "examine", lambda: [optional])
    assert doctor.print_findings() == 0


def test_a_kafka_that_nobody_started_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBLOOP_BUS__BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    finding = doctor.check_kafka()
    assert (finding.ok, finding.needed, finding.detail) == (False, False, "KAFKA_UNREACHABLE")
    assert "THUMBLOOP_BUS__BOOTSTRAP_SERVERS" in finding.mend


def test_a_port_that_speaks_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("THUMBLOOP_BUS__BOOTSTRAP_SERVERS", f"127.0.0.1:{server.server_address[1]}")
        finding = doctor.check_kafka()
        server.shutdown()
        thread.join(5)
    assert (finding.ok, finding.needed, finding.detail) == (False, True, "KAFKA_NO_GREETING")
    assert "THUMBLOOP_BUS__BOOTSTRAP_SERVERS" in finding.mend


class Silent(socketserver.BaseRequestHandler):
    """Closes without a word, to plain text and to TLS alike."""

    def handle(self) -> None:
        self.request.recv(1000)
