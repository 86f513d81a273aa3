"""Asks the worker in this container how it is, for the image's HEALTHCHECK; without Airflow.

    python -m nats_worker.healthcheck /readyz

Prints the worker's answer; exit code 0 if it is well, 1 if it is not or cannot be asked: Docker
knows no others.
"""

from __future__ import annotations

import http.client
import os
import sys

# An image's check knows the environment alone; Airflow's configuration takes seconds to load.
PORT = "AIRFLOW__NATS_EXECUTOR__HEALTH_PORT"
ADDRESS = "AIRFLOW__NATS_EXECUTOR__HEALTH_ADDRESS"
# Bound to these, a worker answers on loopback.
ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - not bound here
# Docker waits for five, and the worker's own answers take no longer than a moment.
SECONDS = 4.0


def ask_worker(address: str, port: int, path: str) -> tuple[bool, str]:
    """Return whether the worker is well, and what it says.

    Raises:
        OSError: nothing answers there.
        http.client.HTTPException: something else does.
    """
    connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read().decode(errors="replace").strip()
    finally:
        connection.close()


def main(path: str) -> int:
    port = os.environ.get(PORT, "")
    if not port.isdigit() or not int(port):
        sys.stderr.write(f"error: {PORT} = {port!r} is no port; set it, or disable the check\n")
        return 1
    address = os.environ.get(ADDRESS, "")
    try:
        is_well, text = ask_worker(
            "localhost" if address in ANY_ADDRESS else address, int(port), path
        )
    except (OSError, http.client.HTTPException) as exc:
        sys.stderr.write(f"error: no worker answers on port {port}: {exc}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0 if is_well else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
