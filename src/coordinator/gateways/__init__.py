"""The ways to call services: what every call needs, and one module per protocol."""
