"""The doctor sees what is missing and says how to mend it."""

from __future__ import annotations

import pytest

from services.cli import doctor


def test_a_missing_package_is_found_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOM_PACKAGES", {"gateway": ("no_such_package",)})
    (finding,) = doctor.check_packages()
    assert not finding.ok
    assert "no_such_package" in finding.detail
    assert finding.mend == "pip install 'thumbloop[gateway]'"


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
