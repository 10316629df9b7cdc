"""Where the admin socket of a journal is: ``admin.sock`` in its folder.

Whoever holds the folder's lock owns the name, so a socket that a killed server left is
simply replaced. Only its owner (and root) may connect: it is made in a folder that
nobody else can enter, and moved to its place when its mode is 0600. A ``umask`` would
do as well, but would hold for all files that other threads make meanwhile.

The kernel takes about 100 bytes of a socket's path. A longer one is reached through
``/proc/self/fd``: there is no second place to write down, to find, or to leave behind.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit

__all__ = ["SOCKET", "journal_folder", "move_in", "private_socket", "within"]

SOCKET = "admin.sock"
_PRIVATE = ".admin"
_PATH_SIZE_MAX = 90
"""Bytes of a folder's path that leave room for a socket in it: macOS takes 103."""


def journal_folder(url: object) -> str | None:
    """Return the folder that a ``file:`` URL names; None for any other journal."""
    if not isinstance(url, str) or not url.startswith("file:"):
        return None
    return unquote(urlsplit(url).path)


@contextmanager
def within(folder: str) -> Generator[str]:
    """Give a short path of *folder*, good for as long as the block runs.

    Raises:
        OSError: There is no such folder.
    """
    if len(os.fsencode(folder)) <= _PATH_SIZE_MAX:
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def private_socket(folder: str) -> str:
    """Return a path in *folder* that nobody else can reach, for a new socket.

    Raises:
        OSError: The folder can't be written to.
    """
    private = f"{folder}/{_PRIVATE}"
    with suppress(FileExistsError):
        os.mkdir(private, 0o700)
    return f"{private}/s"


def move_in(folder: str) -> None:
    """Give the socket made at `private_socket` its mode and its place.

    Raises:
        OSError: It can't be.
    """
    private = f"{folder}/{_PRIVATE}"
    os.chmod(f"{private}/s", 0o600)
    os.replace(f"{private}/s", f"{folder}/{SOCKET}")
    with suppress(OSError):
        os.rmdir(private)
