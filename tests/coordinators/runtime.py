"""A task that is a program of its own; speaks the protocol of Airflow's coordinators itself.

A frame is its length in four bytes and a msgpack array of a number and a body; a log line is JSON.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import msgpack


def connect(name: str) -> socket.socket:
    [address] = [word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")]
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)))


def now() -> str:
    return datetime.now(tz=UTC).isoformat()


def say(logs: socket.socket, event: str) -> None:
    line = {"event": event, "level": "info", "logger": "program", "timestamp": now()}
    logs.sendall(json.dumps(line).encode() + b"\n")


def main() -> None:
    logs, comm = connect("logs"), connect("comm")
    # The task's name stands in the first frame as it is.
    if b"sleep" in comm.recv(2**20):
        signal.signal(signal.SIGTERM, lambda *_: say(logs, "deaf"))
        child = subprocess.Popen(["sleep", "1000"])
        say(logs, f"child {child.pid}")
        while True:
            time.sleep(1)
    say(logs, "hello from a program")
    body = {"type": "SucceedTask", "end_date": now(), "task_outlets": [], "outlet_events": []}
    frame = msgpack.packb([0, body])
    comm.sendall(len(frame).to_bytes(4, "big") + frame)
    comm.recv(2**20)


if __name__ == "__main__":
    main()
