"""The log between services, behind one small interface: Kafka, or memory in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.shared.bus.interface import Bus
    from services.shared.settings.model import BusSettings


def open_bus(settings: BusSettings) -> Bus:
    """The bus that the settings describe. Does not connect. (Kafka's client is imported here, when it is needed.)"""
    from services.shared.bus.kafka import KafkaBus

    return KafkaBus(settings)
