"""The ``kafka:`` journal: a topic of Kafka. docs/kafka-journal.md has the protocol."""
