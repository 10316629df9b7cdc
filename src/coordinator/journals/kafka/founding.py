"""How a topic becomes a journal, once and for ever, whoever comes first.

    partition 0 is empty     send a founding message; that at offset 0 founds it
    offset 0 is there        it is the founding message, or the topic is no journal
    it was trimmed           any message that an owner wrote says whose it is

So of two that start at once, the log decides, and both read the same. A founding
message that comes second means nothing; once offset 0 is gone, none of them counts.
"""

from collections.abc import Callable, Sequence

from coordinator.errors import (
    JournalFormatError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.kafka.messages import (
    Identity,
    encode_founding,
    read_identity,
)
from coordinator.journals.kafka.topic import GoneError, TopicPartition

__all__ = ["identify"]

STRANGERS_MAX = 1000
"""Messages of others before the first of an owner, in what is left after a trim. It
starts with an owner's; only what a crash of a broker brings back may lie before."""


def identify(
    name: str, partitions: Sequence[TopicPartition], new_id: Callable[[], bytes]
) -> Identity:
    """Return which journal topic *name* is, which is made one if it is empty.

    Args:
        name: Of the topic.
        partitions: All that the topic has.
        new_id: Returns 16 bytes that no other journal has.

    Raises:
        JournalFormatError: It is something else, or has lost partitions.
        JournalUnavailableError: It can't be reached, or not be written.
        JournalBrokenError: It can't be read, or refuses to be written.
    """
    zero = partitions[0]
    start, end = zero.bounds()
    if end == 0:
        for number, other in enumerate(partitions):
            if other.bounds()[1] > 0:
                raise _no_journal(name, f"partition {number} has messages, and 0 none")
        try:
            founder = Identity(new_id(), 0, len(partitions))
            zero.append(encode_founding(founder))
        except UncertainError as error:
            raise JournalUnavailableError(
                f"can't make topic {name} a journal: {error}"
            ) from error
        start, end = zero.bounds()
    identity = _read(name, zero, start, end)
    if identity.partitions > len(partitions):
        raise JournalFormatError(
            f"topic {name} has {len(partitions)} partitions, its journal has "
            f"{identity.partitions}: was the topic made anew?"
        )
    return identity


def _read(name: str, zero: TopicPartition, start: int, end: int) -> Identity:
    founded = start == 0
    until = 1 if founded else min(end, start + STRANGERS_MAX)
    try:
        for _, data in zero.fetch(start, until):
            found = read_identity(data)
            if found is None:
                if founded:
                    break
                continue
            identity, founding = found
            if founding == founded and identity.partition == 0:
                return identity
    except GoneError as error:
        raise JournalUnavailableError(
            f"topic {name} is being trimmed; open it again"
        ) from error
    except JournalFormatError as error:
        raise JournalFormatError(f"topic {name} has {error}") from error
    raise _no_journal(
        name,
        f"what lies at offset {start} of partition 0 was not written by a coordinator",
    )


def _no_journal(name: str, why: str) -> JournalFormatError:
    return JournalFormatError(
        f"topic {name} is not a journal: {why}; name another topic, it is made if it "
        f"is not there"
    )
