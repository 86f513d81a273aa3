"""Fixtures of every test: an Airflow of its own, and the fixtures around brokers."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fixtures"]

# Airflow reads these once, at its first import, so they are set before any test module is loaded.
# No test may meet a developer's own configuration, connections or metadata database.
FOREIGN = ("AIRFLOW_", "NATS_EXECUTOR_")
AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-nats-executor-tests-")
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(FOREIGN)]:
    del os.environ[name]
os.environ["AIRFLOW_HOME"] = AIRFLOW_HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# A busy machine is slow, which says nothing of the code. CI tries the same examples every time.
settings.register_profile(
    "project",
    database=None,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run every `async def` test on asyncio, as the product does."""
    return "asyncio"
