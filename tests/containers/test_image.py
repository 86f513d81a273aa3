"""The image: small, the same in every build, without root, and honest about its worker."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers.conftest import IMAGE
from tests.containers.deployment import docker
from tests.support.waiting import block_until
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

START_SECONDS = 240
# Ten times what nats-py, msgpack, prometheus-client, PyNaCl and our packages take is a mistake.
MOST_BYTES = 20_000_000


def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def base() -> str:
    """The image that it was built on."""
    return str(inspected(IMAGE)["Config"]["Labels"]["org.opencontainers.image.base.name"])


def in_image(*command: str) -> str:
    return docker("run", "--rm", "--entrypoint", command[0], IMAGE, *command[1:])


@pytest.fixture(name="worker", scope="module")
def worker_fixture() -> Iterator[str]:
    """A worker of the image's own command, which waits for a NATS server that is not there."""
    name = f"worker-{secrets.token_hex(4)}"
    # Asked every second, so that the test need not wait for thirty.
    often = ("--health-interval=1s", "--health-retries=1", "--health-timeout=5s")
    server = "AIRFLOW__NATS_EXECUTOR__SERVERS=nats://127.0.0.1:4222"
    docker("run", "--detach", "--name", name, *often, "--env", server, IMAGE)
    try:
        block_until(lambda: health(name) == "healthy", START_SECONDS, "the worker to live")
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def health(container: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip()


def test_it_adds_little_to_its_base(capsys: pytest.CaptureFixture[str]) -> None:
    whole = inspected(IMAGE)["Size"]
    added = whole - inspected(base())["Size"]

    with capsys.disabled():
        print(f"\n{IMAGE}: {whole / 1e6:.0f} MB, {added / 1e6:.1f} MB of them above the base")  # noqa: T201
    assert 0 < added < MOST_BYTES


def test_two_builds_add_the_same_files() -> None:
    """Byte for byte, with their modes and times; only the folder they go to says when."""
    again = f"again-{secrets.token_hex(4)}"
    build = ("build", "--quiet", "--no-cache", "--network", "host", "--tag", again)
    docker(*build, "--build-arg", f"BASE={base()}", str(ROOT), timeout=500)
    try:
        first, second = (
            docker("run", "--rm", "--entrypoint", "sh", i, "-c", ADDED).splitlines()
            for i in (IMAGE, again)
        )
        assert len(first) > 100
        assert first == second
    finally:
        docker("rmi", again)


# Every file with the time that the build gives to what it adds.
ADDED = """
cd /home/airflow/.local
find . -type f -newermt 1979-12-31 ! -newermt 1980-01-02 -printf '%m %T@ ' -exec sha256sum {} + |
    sort
"""


def test_it_does_not_run_as_root() -> None:
    assert in_image("id", "-u").strip() == "50000"
    assert in_image("id", "-G").strip() == "0"


def test_nothing_of_the_build_is_left_in_it() -> None:
    """No sources, no wheels, no tools, and no secret in its settings."""
    settings = inspected(IMAGE)["Config"]

    left = set(in_image("find", "/tmp", "-mindepth", "1").split())  # noqa: S108 - the image's
    assert left <= {"/tmp/requirements.lock"}  # noqa: S108 - of deploy/base.Dockerfile
    assert not [e for e in settings["Env"] if "PASSWORD" in e or "SECRET" in e or "SEED" in e]
    assert settings["Entrypoint"] == ["airflow"]


def test_what_is_installed_fits_together() -> None:
    checked = in_image("python", "-c", CHECK).split()

    assert checked[:2] == ["airflow-nats-executor", "ok"]


# Every requirement of ours, at the version that the image has.
CHECK = """
import importlib.metadata as m
from packaging.requirements import Requirement
wanted = [Requirement(text) for text in m.requires("airflow-nats-executor")]
wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
assert all(r.specifier.contains(m.version(r.name)) for r in wanted), wanted
print("airflow-nats-executor", "ok", len(wanted))
"""


def test_a_worker_that_waits_for_nats_lives_and_is_not_ready(worker: str) -> None:
    with pytest.raises(RuntimeError, match=r"not ready: .*NATS"):
        docker("exec", worker, "python", "-P", "-m", "nats_worker.healthcheck", "/readyz")

    assert health(worker) == "healthy"


def test_the_worker_is_the_first_process(worker: str) -> None:
    """Nothing stands between it and the signals of the engine."""
    title = docker("exec", worker, "cat", "/proc/1/cmdline").strip("\0 \n")

    assert title.startswith("airflow nats worker")


def test_a_worker_that_hangs_is_unhealthy(worker: str) -> None:
    docker("kill", "--signal=STOP", worker)

    block_until(lambda: health(worker) == "unhealthy", 60, "the engine to notice")
