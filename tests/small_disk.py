"""A disk that can be filled: a small file system of its own, which only root can mount.

Where that is not allowed the test is skipped; where ``CI`` is set it fails instead.
"""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.lacking import lack


@contextmanager
def mounted(folder: Path, size: str) -> Generator[None]:
    """Mount an empty file system on *folder*, of *size* as ``mount`` understands it."""
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        lack(f"needs the right to mount a small file system: {said.strip()}")
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)
