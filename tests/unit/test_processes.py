"""What must never reach the kernel."""

from __future__ import annotations

import signal

import pytest

from nats_worker.processes import kill_tree, send_signal


@pytest.mark.parametrize("pid", [1, 0, -1])
def test_a_number_that_stands_for_more_than_one_process_is_refused(pid: int) -> None:
    """A kill of group 1 is one of everything; signal 0 would do no harm if this fails."""
    with pytest.raises(ValueError, match="no process of ours"):
        send_signal(pid, 0)


def test_a_tree_with_such_a_root_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGKILL", 0)

    with pytest.raises(ValueError, match="no process of ours"):
        kill_tree(1)
