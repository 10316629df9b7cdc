"""Install the servers that the tests run: ``make servers``."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.servers import kafka, nats
from tests.servers.installing import LackError

INSTALLERS: Mapping[str, Callable[[], Path]] = {
    "nats": nats.install,
    "kafka": kafka.install,
}
"""Each returns what it has put into the cache; one more server is one more line."""


def main() -> int:
    for name, install in INSTALLERS.items():
        try:
            print(f"{name}: {install()}", flush=True)
        except LackError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
