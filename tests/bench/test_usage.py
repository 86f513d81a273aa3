from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.usage import cpu_seconds, pss_megabytes

# Burns a second of CPU in a grandchild that has ended by the time it says so, and half a second
# in an orphan that this process adopts; then it waits to be told to end.
BURNING = """
import os, time
from nats_worker.processes.linux import adopt_orphans

def burn(seconds):
    while time.process_time() < seconds:
        pass

adopt_orphans()
if os.fork() == 0:
    if os.fork() == 0:
        burn(1.0)
        os._exit(0)
    os.wait()
    if os.fork() == 0:
        os.setsid()
        burn(0.5)
        os._exit(0)
    os._exit(0)
os.wait()
os.wait()
print("burned", flush=True)
input()
"""
FILLING = """
import os
block = bytearray(os.urandom(20_000_000))
if os.fork() == 0:
    os.read(0, 1)
    os._exit(0)
print("filled", flush=True)
os.wait()
"""
ENDING = """
import time
while time.process_time() < 0.6:
    pass
"""
BELOW = """
import subprocess, sys
sys.exit(subprocess.call([sys.executable, "-c", sys.argv[1]]))
"""
STAYING = """
import subprocess, sys
subprocess.call([sys.executable, "-c", sys.argv[1]])
print("ended", flush=True)
input()
"""


def below(code: str, root: str = BELOW) -> subprocess.Popen[str]:
    """Start Python code two levels below this process, and wait for the first line of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", root, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")


def test_cpu_of_ended_processes_is_counted_once() -> None:
    process = below(BURNING)
    try:
        # The interpreter's start is in it, and the kernel rounds down to ticks, process by process;
        # counted twice it would be 3 seconds.
        assert 1.4 <= cpu_seconds(process.pid) < 2.9
    finally:
        end(process)


def test_cpu_of_what_the_root_itself_has_waited_for_counts() -> None:
    process = below(ENDING, STAYING)
    try:
        assert cpu_seconds(process.pid) >= 0.5  # the kernel rounds down to ticks
    finally:
        end(process)


def test_memory_that_two_processes_share_is_counted_once() -> None:
    process = below(FILLING)
    try:
        assert 20 < pss_megabytes(process.pid) < 39
    finally:
        end(process)


def test_a_process_that_is_gone_has_no_memory() -> None:
    process = below(FILLING)
    end(process)
    with pytest.raises(FileNotFoundError):
        cpu_seconds(process.pid)
    assert pss_megabytes(process.pid) == 0
