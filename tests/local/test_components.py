"""Child processes: they are watched, and nothing of them is ever left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.local.components import Components
from nats_executor.local.interrupts import Interrupted, interrupts_raised
from nats_executor.local.process import LocalError, Process
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.conftest import Mark

pytestmark = pytest.mark.integration

# Two sleepers, one of them in a session of its own and an orphan: the worst that a task may do.
FAMILY = 'sleep 1000 & setsid sh -c "sleep 1000 & exec true"; echo ready; wait'
STUBBORN = f'trap "" TERM; {FAMILY}'


def shell(name: str, script: str, tmp_path: Path, mark: Mark, *, grace: float = 5) -> Process:
    log = tmp_path / f"{name}.log"
    return Process(name, ["sh", "-c", script], log=log, env=mark.environment, grace_seconds=grace)


def wait_until_ready(components: Components) -> None:
    block_until(lambda: all("ready" in c.log.read_text() for c in components), 10, "readiness")


@pytest.mark.parametrize("script", [FAMILY, STUBBORN], ids=["obedient", "stubborn"])
def test_a_stop_leaves_no_descendant(tmp_path: Path, mark: Mark, script: str) -> None:
    with Components() as components:
        components.start([shell("a", script, tmp_path, mark, grace=0.2)])
        wait_until_ready(components)
        assert len(mark.processes()) >= 4  # leash, shell, two sleepers

    assert mark.processes() == {}


def test_a_dead_component_leaves_no_descendant(tmp_path: Path, mark: Mark) -> None:
    script = FAMILY.replace("wait", "exit 3")
    with Components() as components:
        components.start([shell("a", script, tmp_path, mark)])
        [process] = components
        block_until(lambda: process.exit_code is not None, 10, "the end of the component")

        assert mark.processes() == {}


def test_a_dead_component_gives_one_line(tmp_path: Path, mark: Mark) -> None:
    script = 'echo "2026-01-01T00:00:00.1Z [error ] no such host"; echo bye; exit 3'
    with Components() as components:
        components.start(
            [shell("good", FAMILY, tmp_path, mark), shell("bad", script, tmp_path, mark)]
        )

        with pytest.raises(LocalError) as error:
            components.wait_until(lambda: False, seconds=10, description="never")

    log = tmp_path / "bad.log"
    assert str(error.value) == f"bad ended with exit code 3: [error ] no such host (log: {log})"


def test_a_killed_component_names_the_signal(tmp_path: Path, mark: Mark) -> None:
    with Components() as components:
        components.start([shell("a", "kill -KILL $$", tmp_path, mark)])

        with pytest.raises(LocalError, match="a was killed by SIGKILL"):
            components.wait_until(lambda: False, seconds=10, description="never")


def test_a_missing_program_is_a_dead_component(tmp_path: Path) -> None:
    with Components() as components:
        components.start([Process("a", ["/no/such/program"], log=tmp_path / "log")])

        with pytest.raises(LocalError, match="exit code 127: /no/such/program: No such file"):
            components.wait_until(lambda: False, seconds=10, description="never")


def test_a_dead_process_that_the_components_need_is_found_too(tmp_path: Path, mark: Mark) -> None:
    with (
        Components() as base,
        Components(needs=base) as components,
    ):
        base.start([shell("base", "exit 1", tmp_path, mark)])
        components.start([shell("a", FAMILY, tmp_path, mark)])

        with pytest.raises(LocalError, match="base ended with exit code 1"):
            components.wait_until(lambda: False, seconds=10, description="never")


def test_a_condition_that_stays_false_is_named(tmp_path: Path, mark: Mark) -> None:
    with Components() as components:
        components.start([shell("a", FAMILY, tmp_path, mark)])

        with pytest.raises(LocalError, match=r"the moon: not within 0\.2 s"):
            components.wait_until(lambda: False, seconds=0.2, description="the moon")


PARENT = """
    import pathlib, sys
    from nats_executor.local.components import Components
    from nats_executor.local.interrupts import Interrupted, interrupts_raised
    from nats_executor.local.process import Process

    log = pathlib.Path(sys.argv[1])
    with interrupts_raised():
        try:
            with Components() as components:
                components.start([Process("a", ["sh", "-c", sys.argv[2]], log=log)])
                is_ready = lambda: "ready" in log.read_text()
                components.wait_until(is_ready, seconds=9, description="a")
                print("started", flush=True)
                components.wait_until(lambda: False, seconds=60, description="never")
        except Interrupted as exc:
            sys.exit(exc.exit_code)
"""


def started_parent(tmp_path: Path, mark: Mark) -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "log"), FAMILY],
        env=mark.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "started\n"
    return parent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_parent_stops_everything(
    tmp_path: Path, mark: Mark, number: signal.Signals
) -> None:
    parent = started_parent(tmp_path, mark)

    parent.send_signal(number)

    assert parent.wait(20) == 128 + number
    assert mark.processes() == {}


def test_a_killed_parent_leaves_nothing(tmp_path: Path, mark: Mark) -> None:
    parent = started_parent(tmp_path, mark)

    parent.kill()
    parent.wait(20)

    mark.require_gone()


def test_a_killed_leash_takes_its_command_along(tmp_path: Path, mark: Mark) -> None:
    with Components() as components:
        components.start([shell("a", "echo ready; exec sleep 1000", tmp_path, mark)])
        wait_until_ready(components)
        [process] = components
        assert process.leash is not None

        os.kill(process.leash.pid, signal.SIGKILL)

        mark.require_gone()


def test_an_interrupt_during_a_start_leaves_nothing(
    tmp_path: Path, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = popen(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return process

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", interrupted_popen)
    with pytest.raises(Interrupted), interrupts_raised(), Components() as components:
        components.start([shell("a", FAMILY, tmp_path, mark)])

    assert mark.processes() == {}
