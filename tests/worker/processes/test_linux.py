"""Some signals never reach the kernel, and a tree of processes ends as one."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes.linux import end_trees, kill_tree, send_signal, state_of
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TREES = 60
# Seconds, and longer than pytest lets a test run.
FOR_EVER = 1000.0
NOBODY = 65534
GONE = {"has ended"}


@pytest.fixture
def one_core() -> Iterator[None]:
    """Have this process and those below it take turns, so that the killed may run before it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("pid", [1, 0, -1])
def test_a_number_that_stands_for_more_than_one_process_is_refused(pid: int) -> None:
    """A kill of group 1 is one of everything; signal 0 would do no harm if this fails."""
    with pytest.raises(ValueError, match="no process of ours"):
        send_signal(pid, 0)


def test_a_tree_with_such_a_root_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGKILL", 0)

    with pytest.raises(ValueError, match="no process of ours"):
        kill_tree(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize(
    "kill", [kill_tree, lambda pid: end_trees([pid], FOR_EVER)], ids=["kill", "end"]
)
def test_what_another_user_runs_saves_nobody_else(kill: Callable[[int], None]) -> None:
    """Behind `sudo` in a task, say: that one lives on, and nothing is left stopped."""
    told, voice = os.pipe()
    task = fork_a_task_with_sudo(voice)
    foreign, own = map(int, os.read(told, 100).split())

    killer = os.fork()
    if killer == 0:
        try:
            os.setuid(NOBODY)
            kill(task)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        assert os.waitpid(killer, 0)[1] == 0
        assert os.waitpid(task, 0)[1] == signal.SIGKILL
        block_until(lambda: state_of(own) in GONE, 10, "the end of what the task ran")
        assert Path(f"/proc/{foreign}/stat").read_text().split(") ")[1].startswith("S")
    finally:
        for process in (task, own, foreign):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def fork_a_task_with_sudo(voice: int) -> int:
    """Fork a task of another user, with one child that stays ours and one that is its own."""
    if pid := os.fork():
        return pid
    foreign = os.fork()
    if foreign:
        os.setuid(NOBODY)
        own = os.fork()
        if own:
            os.write(voice, f"{foreign} {own}".encode())
    signal.pause()
    os._exit(1)


@pytest.mark.usefixtures("one_core")
def test_none_of_a_tree_lives_to_tell_of_the_others() -> None:
    """A task process that waits for its supervisor would write of a broken pipe into the log."""
    told, voice = os.pipe()
    last_words = b""
    for _ in range(TREES):
        supervisor = supervisor_with_a_task(voice)
        while not last_words.endswith(b"ready"):
            last_words += os.read(told, 100)
        last_words = last_words.removesuffix(b"ready")

        kill_tree(supervisor)

        assert os.waitpid(supervisor, 0)[1] == signal.SIGKILL
    os.close(voice)
    with os.fdopen(told, "rb") as rest:
        last_words += rest.read()  # which ends with the last task process
    assert last_words == b""


def supervisor_with_a_task(voice: int) -> int:
    """Fork a leader of a group, and below it one; each tells of the other's end."""
    if pid := os.fork():
        return pid
    words, hold = os.pipe()
    os.setpgid(0, 0)
    if os.fork() == 0:
        os.setpgid(0, 0)
        os.close(hold)
        os.write(voice, b"ready")
        os.read(words, 1)
        os.write(voice, b"it is gone")
        os._exit(1)
    os.wait()
    os.write(voice, b"it is gone")
    os._exit(1)
