"""One node of Apache Kafka (KRaft, broker and controller in one), from `KAFKA_HOME`."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded.brokers.broker import Broker
from services.embedded.ports import LOOPBACK, free_port
from services.shared.domain.errors import Misconfigured

FORMAT_TIMEOUT_S = 60.0
JVM_FLAGS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=CONTROLLER://{host}:{controller_port},{listeners}
advertised.listeners={listeners}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocols}
log.dirs={log_dirs}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
unclean.leader.election.enable=false
min.insync.replicas=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.cleaner.dedupe.buffer.size=16777216
"""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A port beside the plain one. `protocol`: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; `name`: letters and `_`;
    `properties` are the listener's own, without its prefix (`ssl.client.auth`).
    """

    name: str
    protocol: str
    port: int
    properties: Mapping[str, str] = field(default_factory=dict)


def kafka_home(environment: Mapping[str, str] | None = None) -> Path:
    """Folder of a Kafka distribution: `KAFKA_HOME`, else `../shared/kafka` beside a checkout. Raises Misconfigured."""
    named = (os.environ if environment is None else environment).get("KAFKA_HOME")
    home = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "kafka"
    if not any(home.glob("libs/kafka_*.jar")):
        raise Misconfigured(
            f"{home} holds no Apache Kafka (libs/kafka_*.jar). "
            "Unpack a Kafka 3.9 or later distribution and set KAFKA_HOME to its folder."
        )
    return home


def find_java(environment: Mapping[str, str] | None = None) -> str:
    """The `java` of `JAVA_HOME`, else of `PATH`. Raises Misconfigured."""
    variables = os.environ if environment is None else environment
    if variables.get("JAVA_HOME"):
        java = Path(variables["JAVA_HOME"]) / "bin" / "java"
        if not java.is_file():
            raise Misconfigured(
                f"JAVA_HOME is {variables['JAVA_HOME']}, where there is no bin/java. Correct or unset it."
            )
        return str(java)
    found = shutil.which("java", path=variables.get("PATH"))
    if found is None:
        raise Misconfigured("Apache Kafka needs Java 17 or later, and there is no `java` in PATH. Install it.")
    return found


class ApacheBroker(Broker):
    """One node, its log formatted at first start."""

    embedded = False

    def __init__(self, *, port: int, data_dir: Path, listeners: Sequence[Listener] = ()) -> None:
        """`listeners`: further ports; the plain one at `port` is always there."""
        super().__init__(port=port, data_dir=data_dir)
        self._listeners = [Listener(name="PLAINTEXT", protocol="PLAINTEXT", port=port), *listeners]
        self._controller_port = 0

    def _prepare(self) -> list[str]:
        java = [find_java(), *JVM_FLAGS, *_logging_flags(kafka_home()), "-cp", f"{kafka_home()}/libs/*"]
        properties = self._write_properties()
        if not (self.data_dir / "log" / "meta.properties").is_file():
            self._format(java, properties)
        return [*java, "kafka.Kafka", str(properties)]

    def _write_properties(self) -> Path:
        self._controller_port = self._controller_port or free_port()
        path = self.data_dir / "server.properties"
        content = PROPERTIES.format(
            host=LOOPBACK,
            controller_port=self._controller_port,
            listeners=",".join(f"{each.name}://{LOOPBACK}:{each.port}" for each in self._listeners),
            protocols=",".join(f"{each.name}:{each.protocol}" for each in self._listeners),
            log_dirs=self.data_dir / "log",
        )
        own = [
            f"listener.name.{each.name.lower()}.{key}={value}\n"
            for each in self._listeners
            for key, value in each.properties.items()
        ]
        path.write_text(content + "".join(own), encoding="utf-8")
        path.chmod(0o600)  # a listener's properties may hold passwords
        return path

    def _format(self, java: list[str], properties: Path) -> None:
        """Gives the empty log its cluster id."""
        command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", _cluster_id()]
        try:
            result = subprocess.run(
                [*command, "-c", str(properties)],
                capture_output=True,
                text=True,
                timeout=FORMAT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Misconfigured(f"Formatting Kafka's log took more than {FORMAT_TIMEOUT_S:g} s.") from error
        if result.returncode != 0:
            raise Misconfigured(f"Kafka's log could not be formatted:\n{result.stdout}{result.stderr}")


def _cluster_id() -> str:
    """A random id in Kafka's form: a UUID in URL-safe base64, which the command line must not take for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return text


def _logging_flags(home: Path) -> list[str]:
    """Warnings and errors to standard output, where the distribution has such a configuration."""
    for name in ("log4j2.properties", "log4j2.yaml"):
        if (home / "config" / name).is_file():
            return [f"-Dlog4j2.configurationFile={home / 'config' / name}"]
    return []
