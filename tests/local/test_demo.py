"""`airflow nats demo`, from the command line to the last process."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from nats_executor.local.expected import EXPECTED, WORKERS
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.conftest import Command

    Start = Callable[..., Command]

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]


def lines_of_readme() -> list[str]:
    """Return a pattern for each line of output that README shows; times may differ."""
    readme = (ROOT / "README.md").read_text()
    [block] = re.findall(r"(?ms)^<!-- demo output -->\n```text\n(.*?)^```\n<!-- end -->", readme)
    lines = [line.split() for line in block.splitlines() if line.split() != ["..."]]
    assert len(lines) > 5
    words = [[re.sub(r"\d+\\\.\d+", r"\\d+\\.\\d+", re.escape(w)) for w in line] for line in lines]
    return [rf"^ *{' +'.join(line)} *$" for line in words]


def test_the_demo_runs_as_expected_and_leaves_nothing(airflow_nats: Start) -> None:
    command = airflow_nats("demo")

    assert command.wait(seconds=240) == 0, command.text

    assert "all as expected" in command.text
    for task in EXPECTED:
        cells = ("success", task.queue, WORKERS[task.queue], str(task.tries), "")
        row = rf"^ *{task.task_id}(\[\d\])?{' +'.join(('', *cells))}"
        assert len(re.findall(row, command.text, re.MULTILINE)) == task.instances
    assert list(command.temporary.iterdir()) == []
    for line in lines_of_readme():
        assert re.search(line, command.text, re.MULTILINE), line
    for port in re.findall(r"://127\.0\.0\.1:(\d+)", command.text):
        socket.create_server(("127.0.0.1", int(port))).close()
