"""`airflow nats top` on a terminal: a real pty, a real nats-server."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING, Self

import pytest

from nats_executor.cli import commands
from nats_executor.operations.survey import take_survey
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Console

pytestmark = pytest.mark.timeout(300)

# Makes the pty the controlling terminal, as a shell does: without one, Ctrl-C is only a character.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "airflow", "nats", "top", *sys.argv[1:]])
"""
HOME = "\x1b[H"
# What a terminal is told besides text: colours, the cursor, the other screen.
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OTHER_SCREEN, FIRST_SCREEN, CURSOR_SHOWN = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
SECONDS = 90


class Terminal:
    """A terminal of 80 columns and 24 lines with `airflow nats top` in it."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.own, self.its = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self.its)
        self.output = ""
        # These would have it believe in a size that this terminal has not.
        inherited = {n: v for n, v in os.environ.items() if n not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *arguments],
            stdin=self.its, stdout=self.its, stderr=self.its,
            env=inherited | {"TERM": "xterm-256color"} | environment, start_new_session=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self.read, daemon=True)

    def __enter__(self) -> Self:
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.its)
        self.reader.join()
        os.close(self.own)

    def read(self) -> None:
        try:
            while data := os.read(self.own, 65536):
                self.output += data.decode(errors="replace")
        except OSError:  # the other end is closed
            return

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def screen(self) -> list[str]:
        """What was drawn last."""
        drawn = self.output.rpartition(HOME)[2]
        return SEQUENCE.sub("", drawn).replace("\r", "").split("\n")

    def wait_for(self, *texts: str) -> None:
        self.wait_until(lambda: all(text in "\n".join(self.screen) for text in texts))

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something on the screen, and fail with the screen if it does not come."""

        def happens() -> bool:
            has_ended = self.process.poll() is not None
            if is_so():
                return True
            assert not has_ended, self.output
            return False

        try:
            block_until(happens, SECONDS)
        except TimeoutError:
            pytest.fail("on the screen there is:\n" + "\n".join(self.screen))

    def press(self, keys: str) -> None:
        os.write(self.own, keys.encode())

    def end(self) -> int:
        """Wait for the end; return the exit code once the terminal was looked at."""
        code = self.process.wait(SECONDS)
        assert termios.tcgetattr(self.its) == self.before
        block_until(lambda: CURSOR_SHOWN in self.output, SECONDS, "the cursor")
        assert self.output.count(OTHER_SCREEN) == self.output.count(FIRST_SCREEN) == 1
        assert self.output.rindex(OTHER_SCREEN) < self.output.rindex(FIRST_SCREEN)
        return code


@pytest.fixture
def start(console: Console) -> Callable[..., Terminal]:
    console.run(commands.setup, queues="default,gpu")
    return lambda **more: Terminal(console.environment | more, "--every", "0.5")


def paused(console: Console) -> dict[str, str]:
    """Return the reasons of paused queues."""
    from nats_executor.cli.arguments import ask

    survey = ask(console.settings, lambda broker: take_survey(broker, console.settings))
    return {hold.queue: hold.reason for hold in survey.holds}


def test_queues_are_shown_filtered_and_paused(
    console: Console, start: Callable[..., Terminal]
) -> None:
    for number in range(3):
        console.send("gpu", f"d{number}")
    with start() as terminal:
        terminal.wait_for("2 queues, 3 pending, 0 running; 0 workers", "? help  q quit")
        assert len(terminal.screen) == 24
        assert max(map(len, terminal.screen)) <= 80
        [row] = [line for line in terminal.screen if line.startswith("gpu")]
        assert row.split()[:3] == ["gpu", "3", "0"]

        terminal.press("jp")
        terminal.wait_for("pause gpu, for what reason?")
        terminal.press("new driver\r")
        terminal.wait_for("gpu is paused by ", "(new driver)")
        assert paused(console) == {"gpu": "new driver"}

        terminal.press("p")
        block_until(lambda: paused(console) == {}, SECONDS, "the end of the pause")
        terminal.press("/def\r")
        terminal.wait_until(lambda: not any(line.startswith("gpu") for line in terminal.screen))
        terminal.press("?")
        terminal.wait_for("any key goes back")
        terminal.press("qq")

        assert terminal.end() == 0


def test_workers_are_shown_and_drained(console: Console, start: Callable[..., Terminal]) -> None:
    console.announce("w1", "gpu")
    with start() as terminal:
        terminal.wait_for("1 workers, 4 slots")
        terminal.press("\t")
        terminal.wait_for("w1", "Tab queues", "does not tell what it runs")
        terminal.press("dnew disk\r")
        # No process is behind this worker's record: it does not obey, and the note stays for its
        # next start.
        terminal.wait_for("worker w1 does not answer", "start")
        terminal.press("q")

        assert terminal.end() == 0


def test_another_size_is_used_at_once(start: Callable[..., Terminal]) -> None:
    with start() as terminal:
        terminal.wait_for("default", "q quit")
        terminal.resize(70, 10)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.wait_until(lambda: len(terminal.screen) == 10)
        terminal.wait_for("default", "q quit")

        assert max(map(len, terminal.screen)) <= 70
        terminal.press("q")
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("how", "code"), [("Ctrl-C", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_terminal_is_as_before_however_it_ends(
    start: Callable[..., Terminal], how: str | signal.Signals, code: int
) -> None:
    with start() as terminal:
        terminal.wait_for("default", "q quit")
        if isinstance(how, signal.Signals):
            terminal.process.send_signal(how)
        else:
            terminal.press("\x03")

        assert terminal.end() == code
        assert "Traceback" not in terminal.output


def test_it_goes_on_while_nats_is_away(start: Callable[..., Terminal]) -> None:
    away = {
        "AIRFLOW__NATS_EXECUTOR__SERVERS": "nats://127.0.0.1:1",
        "AIRFLOW__NATS_EXECUTOR__CONNECT_TIMEOUT_SECONDS": "0.2",
    }
    with start(**away) as terminal:
        terminal.wait_for("cannot reach NATS", "check [nats_executor] servers")
        terminal.press("\t")
        terminal.wait_for("cannot reach NATS", "Tab queues")
        terminal.press("q")

        assert terminal.end() == 0


def test_elsewhere_another_command_is_named(console: Console) -> None:
    assert console.run(commands.top, every=1.0) == (2, "")
    assert "airflow nats queues list --watch 2" in console.error
