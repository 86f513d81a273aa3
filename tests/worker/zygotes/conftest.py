"""A bundle of Dag files, a pool that parses them for each task, and one that keeps zygotes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes.pool import ProcessPool, Warmth
from tests.support.process_stage import make_home
from tests.worker.zygotes.both_ways import BothWays
from tests.worker.zygotes.dags import NASTY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.execution_api import ExecutionApi


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, api: ExecutionApi) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("zygotes")
    environment = make_home(home, api, home)
    bundle = home / "mixed"
    bundle.mkdir()
    (bundle / "scores.txt").write_text("1 2 3")
    for name, (source, _) in NASTY.items():
        (bundle / f"{name}.py").write_text(source.format(name=name))
    bundles = [
        {
            "name": "mixed",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(bundle)},
        }
    ]
    environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(bundles)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield home


@pytest.fixture(scope="module")
async def both(home: Path, api: ExecutionApi) -> AsyncIterator[BothWays]:
    async with ProcessPool() as plain, ProcessPool(warmth=Warmth(dag_zygotes="auto")) as warm:
        await plain.ready()
        await warm.ready()
        yield BothWays(plain, warm, api, home)
