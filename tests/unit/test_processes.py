"""What must never reach the kernel, and a tree of processes that ends as one."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes import kill_tree, send_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

TREES = 60


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
    """Fork a leader of a group, and below it one that waits for a word from it."""
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
    signal.pause()
    os._exit(1)
