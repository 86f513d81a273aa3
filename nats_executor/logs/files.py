"""Opens log files below one folder, and deletes them, without a symbolic link on the way.

A workload may put anything in the place of its log file and of the folders around it. So nothing
here is a path that was checked: each step goes from a folder that is open to what it contains.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self

from nats_executor.errors import NatsExecutorError
from nats_executor.text import shown

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LogFile", "Refused", "describe"]

# Errors of opening a symbolic link, at the end of a path and in the midst of it.
LINKS = frozenset({errno.ELOOP, errno.ENOTDIR})


class Refused(NatsExecutorError):
    """A log that cannot be read; its text says why."""


class LogFile:
    """A regular file that is open for reading, and the folders on its way.

    Attributes:
        fd: the file's descriptor, closed with this context.

    Raises:
        FileNotFoundError: there is none.
        Refused: it is not below the folder, or no file to read.
    """

    def __init__(self, folder: str | os.PathLike[str], relative: str) -> None:
        *parents, name = parts_of(relative)
        self._name = name
        # Each with its name in the one before; the first one may be a link, and has no name.
        self._folders: list[tuple[str, int]] = []
        self.fd = -1
        try:
            self._walk(folder, parents)
        except FileNotFoundError:
            self.close()
            raise
        except OSError as exc:
            self.close()
            is_link = exc.errno in LINKS
            text = "a symbolic link is in its path" if is_link else describe(exc)
            raise Refused(text) from exc
        except ValueError as exc:
            self.close()
            raise Refused(f"{shown(relative)} is no path") from exc
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            self.close()
            raise Refused("it is no regular file")

    def _walk(self, folder: str | os.PathLike[str], parents: list[str]) -> None:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._folders.append(("", here))
        for parent in parents:
            here = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            self._folders.append((parent, here))
        # A pipe without a writer would make it wait.
        self.fd = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for fd in (self.fd, *(fd for _, fd in self._folders)):
            if fd >= 0:
                os.close(fd)
        self._folders.clear()
        self.fd = -1

    def delete(self) -> None:
        """Delete the file, if it is still there, and the folders that are empty without it."""
        folders = self._folders
        with contextlib.suppress(OSError):  # not empty, or another process was faster
            there = os.stat(self._name, dir_fd=folders[-1][1], follow_symlinks=False)
            if not os.path.samestat(there, os.fstat(self.fd)):
                return
            os.unlink(self._name, dir_fd=folders[-1][1])
            for (_, parent), (name, _) in reversed(list(pairwise(folders))):
                os.rmdir(name, dir_fd=parent)


def parts_of(relative: str) -> tuple[str, ...]:
    path = PurePosixPath(relative)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise Refused(f"{shown(relative)} is not below the log folder")
    return path.parts


def describe(exc: OSError) -> str:
    return f"it cannot be read: {exc.strerror or exc}"
