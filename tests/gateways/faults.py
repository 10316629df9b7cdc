"""What is out of order around a gateway: descriptors that are gone, certificates."""

import os
import resource
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificate", "make_certificate", "no_descriptors"]


@contextmanager
def no_descriptors() -> Generator[None]:
    """Let nobody open anything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest number that is free is the first that nobody gets.
    with Path(os.devnull).open() as lowest:
        limit = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Certificate:
    """A certificate that trusts itself, and its key."""

    path: Path
    key_path: Path

    @property
    def pem(self) -> bytes:
        return self.path.read_bytes()

    @property
    def key(self) -> bytes:
        return self.key_path.read_bytes()


def make_certificate(folder: Path, name: str = "certificate") -> Certificate:
    """Make a certificate for 127.0.0.1, with openssl."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    command += f" -keyout {made.key_path} -out {made.path} -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True)
    return made
