"""The tutorial, command by command, as a reader copies it; `make tutorial` runs it.

Only ports are put in, and a PostgreSQL in the place of the machine's own. With `TUTORIAL_BIN`, a
folder with `airflow` and `nats-server`, that installation is used instead of a new one.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from nats_executor.local.deployment import free_port, python_environment
from nats_executor.local.process import Process
from tests.airflow.postgres import PostgresServer
from tests.support.tutorial import Block, Page, is_shown, outputs, script
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.integration,
    pytest.mark.tutorial,
    pytest.mark.timeout(3600),
]

TUTORIAL = ROOT / "docs/tutorial/cluster.md"
PORTS = ("4221", "4222", "4223", "6221", "6222", "6223", "8080")
POSTGRES = "sudo -u postgres psql"
POSTGRES_PORT = "5432"
SECONDS = 1800.0


def adapted(page: str, database: PostgresServer) -> str:
    """Return the page with ports that are free here, and with another PostgreSQL."""
    ports = {port: str(free_port()) for port in PORTS} | {POSTGRES_PORT: str(database.port)}
    assert len(set(ports.values())) == len(ports)
    assert POSTGRES in page
    psql = f"{database.programs}/psql -h 127.0.0.1 -p {POSTGRES_PORT} -U airflow -d postgres"
    page = page.replace(POSTGRES, psql)
    return re.sub("|".join(rf"\b{port}\b" for port in ports), lambda m: ports[m[0]], page)


def environment(home: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "PYTHON"))}
    return inherited | python_environment(home) | {"HOME": str(home), "COLUMNS": "400"}


def install(page: Page, home: Path) -> None:
    """Install what the page installs, or make what is installed look like it."""
    if given := os.environ.get("TUTORIAL_BIN"):
        (home / "nats-tutorial/bin").mkdir(parents=True)
        (home / "nats-tutorial/bin/activate").write_text(f"PATH={given}:$PATH\n")
        return
    [block] = page.with_remark("install")
    for command in block.commands:
        subprocess.run(["bash", "-ec", command], cwd=ROOT, env=environment(home), check=True)


def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    with PostgresServer() as database:
        page = Page(adapted(TUTORIAL.read_text(), database))
        install(page, tmp_path)
        blocks = [block for block in page.blocks if block.remark not in {"install", "not run"}]
        text = tmp_path / "tutorial.sh"
        text.write_text(script(blocks))
        log = tmp_path / "tutorial.log"
        process = Process(
            "tutorial", ["bash", str(text)], log=log, env=environment(tmp_path), grace_seconds=30
        )
        process.start()
        try:
            assert process.wait_for_end(SECONDS) == 0, log.read_text()
        finally:
            process.stop()
    assert missing(blocks, outputs(log.read_text())) == []


def missing(blocks: list[Block], printed: list[str]) -> list[str]:
    """Return the lines that the page shows and the commands before them did not print."""
    assert len(printed) == len(blocks) + 1
    return [
        line
        for block, output in zip(blocks, printed, strict=False)
        for line in block.shown
        if not is_shown(line, output)
    ]
