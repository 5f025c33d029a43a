from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from services.shared.settings.model import DeploymentSettings
from services.shared.telemetry.log import configure, get_logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is the one thing a process has once; give it back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_json_line_names_time_room_deployment_and_values() -> None:
    output = io.StringIO()
    configure(DeploymentSettings(name="prod", log_json=True), "reward", output)
    get_logger(replica="r-0").info("release_live", version="p-1", count=3)
    [line] = lines(output)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "event": "release_live",
        "level": "info",
        "room": "reward",
        "deployment": "prod",
        "replica": "r-0",
        "version": "p-1",
        "count": 3,
    }


def test_a_logger_made_before_configure_follows_it() -> None:
    logger = get_logger()
    output = io.StringIO()
    configure(DeploymentSettings(log_json=True), "gateway", output)
    logger.warning("late")
    assert lines(output)[0]["event"] == "late"


def test_lower_levels_are_left_out() -> None:
    output = io.StringIO()
    configure(DeploymentSettings(log_level="warning", log_json=True), "learner", output)
    get_logger().info("quiet")
    get_logger().warning("loud")
    assert [line["event"] for line in lines(output)] == ["loud"]


def test_tracebacks_stand_in_the_line() -> None:
    output = io.StringIO()
    configure(DeploymentSettings(log_json=True), "learner", output)
    try:
        raise ValueError("the cause")
    except ValueError as error:
        get_logger().error("failed", exc_info=error)
    assert "ValueError: the cause" in str(lines(output)[0]["exception"])


def test_libraries_log_the_same_way() -> None:
    output = io.StringIO()
    configure(DeploymentSettings(log_json=True), "learner", output)
    logging.getLogger("some.library").warning("disk %d%% full", 93)
    logging.getLogger("kafka.conn").info("connected")
    [line] = lines(output)
    assert (line["event"], line["room"], line["level"]) == ("disk 93% full", "learner", "warning")


def test_text_for_people() -> None:
    output = io.StringIO()
    configure(DeploymentSettings(), "generator", output)
    get_logger().info("release_live", version="p-1")
    [text] = output.getvalue().splitlines()
    assert "release_live" in text
    assert "version=p-1" in text
    assert "room=generator" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("log_json", [True, False])
def test_a_traceback_shows_no_values(log_json: bool) -> None:
    """What users wrote is in local variables all over; none of it may reach a log."""
    output = io.StringIO()
    configure(DeploymentSettings(log_json=log_json), "generator", output)

    def answer(message: str) -> None:
        raise ValueError("the cause")

    try:
        answer("".join(["my ", "secret"]))
    except ValueError as error:
        get_logger().error("failed", exc_info=error)
    assert "the cause" in output.getvalue() and "in answer" in output.getvalue()
    assert "my secret" not in output.getvalue()
