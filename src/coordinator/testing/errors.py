"""What the kit raises: a test that is written wrongly, and a saga that is.

RehearsalError       the test can't be run as it is written; says what to write instead
BrokenPromiseError   a saga, a service or a fake does what a crash or a fault brings out
"""

from coordinator.errors import CoordinatorError

__all__ = ["BrokenPromiseError", "RehearsalError"]


class RehearsalError(CoordinatorError):
    """The test asks for what a rehearsal can't do."""


class BrokenPromiseError(AssertionError):
    """A run ended otherwise than it should have; the message tells its story.

    Attributes:
        kind: Of what is wrong, in a word: ``result``, ``world``, ``stuck``, ...
        seed: Of `explore`; None if no seed was drawn.
    """

    def __init__(self, message: str, *, kind: str, seed: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.seed = seed
