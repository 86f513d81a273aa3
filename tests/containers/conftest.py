"""A container engine with the images of `tests/images/make-images`."""

from __future__ import annotations

import os
import subprocess
from shutil import which

import pytest

from tests.support.fixtures import has_docker_socket

IMAGE = "airflow-nats-executor:dev"


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skip where no engine runs; where CI promised the images, it is a failure to lack them."""
    if not which("docker") or not has_docker_socket():
        pytest.skip("no Docker engine: its socket is not there")
    for command, lack in (
        (["compose", "version"], "no docker compose: run tests/images/get-compose"),
        (["image", "inspect", IMAGE], f"no image {IMAGE}: run tests/images/make-images"),
    ):
        done = subprocess.run(["docker", *command], capture_output=True, check=False)
        if done.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(lack)
