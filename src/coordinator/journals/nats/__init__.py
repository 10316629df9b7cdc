"""The ``nats:`` journal: JetStream streams; needs ``coordinator[nats]``."""
