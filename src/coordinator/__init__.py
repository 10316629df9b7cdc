"""Durable sagas: ordinary async code, a log instead of a database."""
