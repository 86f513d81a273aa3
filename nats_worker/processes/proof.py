"""Tests a worker's starts before it takes workloads, and again when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

from nats_worker.processes.exit_report import Ending
from nats_worker.processes.fitness import Fitness, Takes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_worker.processes.pool import ProcessPool

__all__ = ["SELF_TEST", "Proof"]

log = logging.getLogger(__name__)

# More than each of its steps may take.
TEST_SECONDS = 60.0
HANGS = (
    f"a self-test did not end within {TEST_SECONDS:.0f} s: look at the disk of [logging] "
    "base_log_folder, and at the name of the host in [core] execution_api_server_url"
)
# In the names of such runs; a dispatch id has no space.
SELF_TEST = "self test"


class Proof:
    """Runs the self-tests when they are due, and tells the worker what it may take.

    Args:
        follow: called at once when the worker may take more or less than before.

    Attributes:
        fitness: what is known; the worker's errands note their starts there.
    """

    def __init__(self, follow: Callable[[], None]) -> None:
        self.fitness = Fitness(self._change)
        self._follow = follow
        self._taken = self.fitness.takes
        self._said = ""
        self._changed = asyncio.Event()
        self._given = asyncio.Event()

    @property
    def reason(self) -> str:
        """The reason to take nothing, '' if there is none or none is known yet."""
        return self.fitness.reason

    async def given(self) -> None:
        """Wait until the worker may take something for the first time."""
        await self._given.wait()

    async def watch_forever(self, pool: ProcessPool, tell: Callable[[], Awaitable[None]]) -> None:
        """Test what is to be tested; calls `tell` after each change of the reason.

        Raises:
            PoolBroken: there is no fork server any more.
        """
        told = self.reason
        while True:
            self._changed.clear()
            if told != self.reason:
                told = self.reason
                await tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.fitness.test_in):
                    await self._changed.wait()
                    continue
            self.fitness.note_test(await findings(pool))

    def _change(self) -> None:
        self._changed.set()
        if self.fitness.takes is not self._taken:
            self._taken = self.fitness.takes
            self._follow()
        if self._taken is Takes.NOTHING:
            self._warn()
        else:
            self._given.set()
            self._reassure()

    def _warn(self) -> None:
        if self.reason and self.reason != self._said:
            self._said = self.reason
            text = "%s; next: taking no workloads, a self-test in %.0f s, then after growing pauses"
            log.warning(text, self.reason, self.fitness.test_in)

    def _reassure(self) -> None:
        if self._said and self._taken is Takes.ALL:
            self._said = ""
            log.info("workloads can start here now; next: taking %s", self._taken)
        elif self._said:
            log.info("a self-test finds nothing wrong; next: taking %s", self._taken)


async def findings(pool: ProcessPool) -> list[str]:
    """Have a self-test run, and return what it finds wrong."""
    run = await pool.start_self_test(SELF_TEST)
    try:
        async with asyncio.timeout(TEST_SECONDS):
            report = await run.exited()
    except TimeoutError:
        return [HANGS]
    finally:
        run.signal(signal.SIGKILL)
    if report.ending is Ending.DIED:
        return [f"a self-test could not run: {report.info}"]
    return report.info.splitlines()
