"""Settings for all tests."""

from hypothesis import settings

# A wall-clock deadline fails on a busy machine and proves nothing on a quiet one.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
