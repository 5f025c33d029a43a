"""What is missing for a broker is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embedded.brokers import ApacheBroker, make_broker
from services.embedded.brokers.apache import find_java, kafka_home
from services.embedded.ports import free_port
from services.shared.domain.errors import Misconfigured, Unavailable


def test_an_unknown_broker_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="embedded, apache, or HOST:PORT"):
        make_broker("rabbit", port=1, data_dir=tmp_path)


def test_a_folder_without_kafka_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(Misconfigured, match="KAFKA_HOME"):
        make_broker("apache", port=free_port(), data_dir=tmp_path / "data").start(5)


def test_kafka_home_is_what_the_variable_says(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.2.0.jar").touch()
    assert kafka_home({"KAFKA_HOME": str(tmp_path)}) == tmp_path


@pytest.mark.parametrize(("variable", "word"), [("JAVA_HOME", "JAVA_HOME"), ("PATH", "Java 17")])
def test_a_missing_java_is_told(tmp_path: Path, variable: str, word: str) -> None:
    with pytest.raises(Misconfigured, match=word):
        find_java({variable: str(tmp_path)})


def test_a_broker_that_dies_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    class Dying(ApacheBroker):
        def _prepare(self) -> list[str]:
            return ["sh", "-c", "echo no room left; exit 7"]

    with pytest.raises(Unavailable, match=r"(?s)ended with 7.*no room left"):
        Dying(port=free_port(), data_dir=tmp_path / "data").start(10)


def test_a_broker_that_never_serves_is_ended(tmp_path: Path) -> None:
    class Silent(ApacheBroker):
        def _prepare(self) -> list[str]:
            return ["sleep", "300"]

    broker = Silent(port=free_port(), data_dir=tmp_path / "data")
    with pytest.raises(Unavailable, match="did not serve"):
        broker.start(0.3)
    assert not broker.is_running()
