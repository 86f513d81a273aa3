"""The dead orphans of a task are taken from its supervisor, and nothing else is."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own, because it changes how signals are handled.
REAPER = """
import os, selectors, signal, subprocess
from nats_worker.processes.reaping import Reaper, children_of_main_thread

reaper, selector = Reaper(), selectors.DefaultSelector()
own = subprocess.Popen(["sh", "-c", "read _; exit 3"], stdin=subprocess.PIPE)

reaper.attach(selector)

orphan = subprocess.Popen(["sh", "-c", "exit 3"])
for _ in range(100):
    (key, _), = selector.select(60)
    handle, _ = key.data
    assert handle(key.fileobj), "Airflow would close it"
    if orphan.pid not in children_of_main_thread():
        break
assert orphan.pid not in children_of_main_thread()
own.stdin.close()
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
reaper.take()
assert own.wait() == 3
# Not even a process that is forked meanwhile has anything of it.
child = os.fork()
if child == 0:
    is_free = signal.set_wakeup_fd(-1) == -1 and signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    os._exit(4 if is_free and reaper.bell is None else 5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
reaper.detach()
assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
assert signal.set_wakeup_fd(-1) == -1
print("good")
"""


def test_a_reaper_takes_orphans_alone() -> None:
    process = subprocess.run(
        [sys.executable, "-c", REAPER], capture_output=True, text=True, check=False
    )

    assert process.stdout == "good\n", process.stderr
