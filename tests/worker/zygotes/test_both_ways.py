"""A task started from a zygote leaves what a task leaves that has parsed its Dag file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.worker.zygotes.both_ways import age
from tests.worker.zygotes.dags import NASTY

if TYPE_CHECKING:
    from nats_worker.processes.zygote_book import Reason
    from tests.worker.zygotes.both_ways import BothWays

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("name", "reason"), [(name, why) for name, (_, why) in NASTY.items()])
async def test_a_task_leaves_the_same(both: BothWays, name: str, reason: Reason | None) -> None:
    path = f"{name}.py"
    plain = await both.run(both.plain, path, name, "tell")
    age(both.home / "mixed")
    before = both.warm.zygotes.refused.copy()

    has_zygote = await both.warm_up(path, name, "tell")
    starts = both.warm.zygotes.starts
    warm = await both.run(both.warm, path, name, "tell")

    refused = {*(both.warm.zygotes.refused - before)}
    assert (reason in refused) if reason else has_zygote, refused
    assert both.warm.zygotes.starts - starts == has_zygote
    assert warm == plain
