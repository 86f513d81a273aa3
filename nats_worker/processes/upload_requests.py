"""Asks the uploader to store a task's log; `uploads/uploader.py` has the protocol."""

from __future__ import annotations

import socket
import time

from nats_executor.errors import BrokerUnavailable, NatsExecutorError
from nats_executor.logs.store import UPLOAD_SECONDS
from nats_worker.processes.protocol import MAX_EVENT_BYTES, pack, unpack

__all__ = ["ANSWER_SECONDS", "PRIVATE", "UploadRequests"]

# A supervisor waits for so long, from when it asks.
ANSWER_SECONDS = UPLOAD_SECONDS + 2.0
# Another uploader takes the place of one that has died.
AGAIN_SECONDS = 0.1
# An uploader says this once no task can look into it.
PRIVATE = b"+"


class UploadRequests:
    """Asks the uploader, one log at a time.

    Args:
        to_uploader: a socket over which uploads are asked for; the worker's processes share it.
    """

    def __init__(self, to_uploader: socket.socket) -> None:
        self.to_uploader = to_uploader
        # Of an uploader that is stopped; all who have this end agree on it.
        self.to_uploader.settimeout(ANSWER_SECONDS)

    def __call__(self, queue: str, path: str, file: int) -> None:
        """Have an open file stored as a log.

        Raises:
            NatsExecutorError: it is not.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        request = pack({"queue": queue, "path": path})
        while (left := deadline - time.monotonic()) > 0:
            answer = self._ask(request, file, left)
            if not answer:
                time.sleep(AGAIN_SECONDS)
                continue
            found = unpack(answer)
            if found["error"]:
                kind = BrokerUnavailable if found["is_away"] else NatsExecutorError
                raise kind(found["error"])
            return
        raise BrokerUnavailable(f"not stored within {ANSWER_SECONDS:g} s")

    def _ask(self, request: bytes, file: int, seconds: float) -> bytes:
        """Return the answer, nothing if the uploader ends before it gives one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                try:
                    socket.send_fds(self.to_uploader, [request], [file, theirs.fileno()])
                except OSError as exc:
                    raise NatsExecutorError(f"the worker's uploader is gone: {exc}") from exc
            ours.settimeout(seconds)
            try:
                return ours.recv(MAX_EVENT_BYTES)
            except (TimeoutError, ConnectionResetError):
                return b""
