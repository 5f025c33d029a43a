"""The log between services, behind one small interface: Kafka, or memory in tests."""
