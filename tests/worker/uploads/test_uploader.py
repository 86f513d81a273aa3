"""The process that stores task logs: what it inherits, and what it cannot read."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes.protocol import pack
from nats_worker.processes.upload_requests import PRIVATE
from nats_worker.uploads.process import launch
from nats_worker.uploads.uploader import received

if TYPE_CHECKING:
    from collections.abc import Iterator


def inherited(pid: int) -> set[str]:
    """Return what process `pid` has from its parent, beside its standard streams.

    What it opens itself closes at the next exec: so do the loader and Python.
    """
    found = set[str]()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was its own, and is closed
            about = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text(encoding="ascii")
            flags = int(dict(map(str.split, about.splitlines()[:2]))["flags:"], 8)
            if int(fd.name) > 2 and not flags & os.O_CLOEXEC:
                found.add(str(fd.readlink()))
    return found


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_it_gets_the_login_only_once_no_task_can_look_into_it(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Until then another process of its user may open all that it inherits."""
    ours, theirs = ends
    to_uploader, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with to_uploader, served:
        process = launch(served, theirs)
        try:
            given = inherited(process.pid)
            assert given, "it has no socket yet"
            assert all(name.startswith("socket:") for name in given), given

            theirs.close()
            assert ours.recv(16) == PRIVATE
            ours.close()
            assert process.wait(30) == 0  # no process is left that could ask
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "packet", [b"", b"\xc1", pack({"queue": "a"}), pack({"queue": "a", "path": "x"})],
    ids=["empty", "no msgpack", "without a path", "a folder"],
)  # fmt: skip
def test_what_it_cannot_read_stays_open_nowhere(packet: bytes) -> None:
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    answers = os.dup(folder)

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the packet makes of it
        received(packet, folder, answers)

    for closed in (folder, answers):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(closed)
