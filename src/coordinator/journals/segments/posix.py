"""The file system of the machine, as `files` asks for it.

Four habits, and what each is against:

* Files are opened relative to their folder's descriptor, with O_NOFOLLOW: a link
  planted in a journal folder leads nowhere, and a folder renamed under us stays ours.
* O_CLOEXEC everywhere (Python's default): a child process that is *executed* inherits
  neither files nor locks. A child that is *forked* keeps the lock as long as it lives.
* Writes go by `pwrite` in a loop: a short write is no error and no success.
* Names are made durable by fsync of the folder; ext4 and xfs both need it.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence

from coordinator.errors import JournalLockedError
from coordinator.journals.segments.files import Folder

__all__ = ["PosixFile", "PosixFolder", "PosixLock"]

_ZEROS = bytes(1024 * 1024)
_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What `posix_fallocate` says where a file system can't allocate ahead."""
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL})
"""What is said of a folder that we can't have made: another user's, the kernel's."""


class PosixFile:
    """An open file; see `files.File`."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        """See the port."""
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # A short read may be the end, or a signal's doing: ask again.
        missing = size - len(data)
        while missing and (
            data := os.pread(self._descriptor, missing, offset + size - missing)
        ):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """See the port."""
        written = os.pwrite(self._descriptor, data, offset)
        if written == len(data):
            return
        view = memoryview(data)
        while written < len(data):
            written += os.pwrite(self._descriptor, view[written:], offset + written)

    def sync(self) -> None:
        """See the port. `fdatasync` flushes a changed size too; times can wait."""
        os.fdatasync(self._descriptor)

    def allocate(self, size: int) -> None:
        """See the port."""
        start = self.size()
        if start >= size:
            return
        try:
            os.posix_fallocate(self._descriptor, start, size - start)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            # Zeros take the space too, except where blocks are copied on write; there
            # the space may be missing later, and the store copes with that.
            for offset in range(start, size, len(_ZEROS)):
                self.write(offset, _ZEROS[: size - offset])

    def truncate(self, size: int) -> None:
        """See the port."""
        os.ftruncate(self._descriptor, size)

    def size(self) -> int:
        """See the port."""
        return os.fstat(self._descriptor).st_size

    def linked(self) -> bool:
        """See the port."""
        return os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        """See the port."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class PosixLock:
    """A held `flock`; see `files.FileLock`.

    `flock`, not `lockf`: the latter is lost as soon as the process closes *any*
    descriptor of the file. Either goes with the process, however it ends.
    """

    def __init__(self, file: PosixFile, folder: "PosixFolder", name: str) -> None:
        self._file = file
        self._folder = folder
        self._name = name
        status = os.fstat(file._descriptor)  # noqa: SLF001
        self._identity = status.st_ino, status.st_dev

    def held(self) -> bool:
        """See the port.

        A lock is on the inode: whoever finds another one under the name, or none, gets
        a lock of its own.
        """
        folder = self._folder._descriptor  # noqa: SLF001
        try:
            named = os.stat(self._name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (named.st_ino, named.st_dev) == self._identity

    def release(self) -> None:
        """See the port."""
        self._file.close()


class PosixFolder:
    """A folder, held open; see `files.Folder`."""

    def __init__(self, path: str, *, within: int | None = None) -> None:
        """Open the folder at *path*, which exists.

        Args:
            path: Where it is; the last part of it if *within* is given.
            within: Descriptor of the folder that it is in.
        """
        self._path = path
        self._descriptor = -1  # So that __del__ finds it when the next line raises.
        self._descriptor = os.open(
            path if within is None else os.path.basename(path),
            os.O_RDONLY | os.O_DIRECTORY | (0 if within is None else os.O_NOFOLLOW),
            dir_fd=within,
        )

    def __del__(self) -> None:
        # The port has no close: a folder lives as long as somebody refers to it.
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @classmethod
    def make(cls, path: str) -> "PosixFolder":
        """Open the folder at *path*, made (for us alone to read) if it is missing."""
        if not os.path.isdir(path):
            parent, _ = os.path.split(os.path.abspath(path))
            os.makedirs(parent, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        folder = cls(path)
        folder._sync_parents()
        return folder

    def _sync_parents(self) -> None:
        """Make the name of this folder durable, and those of the folders above it.

        Also if it was there: who made them may have been killed before they were. Up to
        the root of the file system; where nothing is new that costs next to nothing.
        """
        path = os.path.abspath(self._path)
        while (parent := os.path.dirname(path)) != path:
            path = parent
            try:
                folder = PosixFolder(path)
                if folder.device() != self.device():
                    return
                folder.sync()
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise

    @property
    def path(self) -> str:
        """See the port."""
        return self._path

    def names(self) -> Sequence[str]:
        """See the port."""
        return sorted(os.listdir(self._descriptor))

    def open(self, name: str, *, writable: bool = False) -> PosixFile:
        """See the port."""
        return self._open(name, os.O_RDWR if writable else os.O_RDONLY)

    def create(self, name: str) -> PosixFile:
        """See the port."""
        return self._open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def rename(self, old: str, new: str) -> None:
        """See the port."""
        os.replace(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def move(self, name: str, target: Folder) -> None:
        """See the port."""
        assert isinstance(target, PosixFolder)
        # Another folder of this class; nobody else is to see a descriptor.
        source, destination = self._descriptor, target._descriptor  # noqa: SLF001
        os.replace(name, name, src_dir_fd=source, dst_dir_fd=destination)

    def remove(self, name: str) -> None:
        """See the port."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """See the port."""
        os.fsync(self._descriptor)

    def folder(self, name: str) -> "PosixFolder":
        """See the port."""
        path = os.path.join(self._path, name)
        return PosixFolder(path, within=self._descriptor)

    def make_folder(self, name: str) -> "PosixFolder":
        """See the port."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        # Also if it exists: who made it may have been killed before this.
        self.sync()
        return self.folder(name)

    def lock(self, name: str, owner: str) -> PosixLock:
        """See the port."""
        file = self._open(name, os.O_RDWR | os.O_CREAT)
        try:
            # The port has no `flock`, so that nobody locks a file but here.
            fcntl.flock(file._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # noqa: SLF001
        except BlockingIOError:
            holder = file.read(0, 1024).decode("utf-8", "replace").strip()
            file.close()
            raise JournalLockedError(
                self._path, holder or "somebody who has not written a name yet"
            ) from None
        except OSError:
            file.close()
            raise
        # For people, as long as the machine is up: neither synced nor worth failing for
        # on a full disk.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(0, owner.encode())
        return PosixLock(file, self, name)

    def free(self) -> int:
        """See the port."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    def device(self) -> int:
        """Return the number of its file system: files move within one only."""
        return os.fstat(self._descriptor).st_dev

    def _open(self, name: str, flags: int) -> PosixFile:
        descriptor = os.open(
            name, flags | os.O_NOFOLLOW, 0o600, dir_fd=self._descriptor
        )
        return PosixFile(descriptor)
