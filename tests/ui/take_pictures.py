"""Takes the pictures of the page in Airflow's UI, in Chromium, of a whole Airflow at work.

Run as `python -m tests.ui.take_pictures`; writes to `docs/images`. Only the curves of the last hour
are made up: the tasks wait and run while the pictures are taken.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

from nats_executor.wire.history import Minute
from tests.tools.pictures import IMAGES
from tests.ui.site import Site
from tests.ui.test_browser import CHROMIUM, DARK, PATIENCE, opened, row

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = {"width": 1280, "height": 430}
# For each queue: how many tasks the Dag has there, and how high its curve is.
QUEUES = {"default": (3, 12), "etl": (30, 46), "gpu": (6, 9), "reports": (4, 4)}
WORKERS = {"etl-1": ("default,etl", 8), "etl-2": ("default,etl", 8), "gpu-1": ("gpu", 2)}
DAG = f"""
import time
from airflow.sdk import dag, task

@dag(schedule=None, is_paused_upon_creation=False, max_active_tasks=100)
def nightly():
    for queue, (count, _) in {QUEUES!r}.items():
        @task(task_id=queue, queue=queue, max_active_tis_per_dag=50)
        def work(number):
            time.sleep(3600)
        work.expand(number=list(range(count)))

nightly()
"""


def fill(site: Site) -> None:
    """Start the rest of Airflow and the workers, and let their tasks run and wait."""
    (site.home / "dags" / "nightly.py").write_text(DAG)
    site.set_up(QUEUES)
    _, *others = site.deployment.core(host="127.0.0.1", port=site.port)
    site.components.start(others)
    for name, (queues, slots) in WORKERS.items():
        worker = site.deployment.worker(name, queues=queues, concurrency=slots)
        site.components.start([worker])
    for queue, (_, most) in QUEUES.items():
        site.remember(queue, *(Minute(depth=depth_at(n, most)) for n in range(60)))
    site.api.log_in("admin", "admin")
    site.wait(lambda: site.api.has_dag("nightly"), "the Dag")
    site.api.trigger("nightly")
    pause = ["nats", "queues", "pause", "gpu", "--for", "1h", "--reason", "new driver"]
    site.wait(lambda: runs_at(site, "gpu") == WORKERS["gpu-1"][1], "the tasks of gpu to run")
    process = site.deployment.process("pause", *pause)
    process.env = site.deployment.env | {"LOGNAME": "ann"}
    site.run(process)


def depth_at(minute: int, most: int) -> int:
    """Return a curve that rises, falls and rises."""
    return most * abs(30 - (minute * 7) % 61) * minute // 1800


def runs_at(site: Site, queue: str) -> int:
    counted = f"SELECT count(*) FROM task_instance WHERE queue = '{queue}' AND state = 'running'"
    return int(site.rows(counted)[0][0])


def take(page: Page, name: str) -> None:
    page.screenshot(path=IMAGES / f"{name}.png")


def take_all(site: Site, browser: Browser) -> None:
    for theme, script in (("light", ""), ("dark", DARK)):
        with opened(site, browser, "op", script) as page:
            page.set_viewport_size({"width": SIZE["width"], "height": SIZE["height"]})
            page.goto(f"{site.url}/plugin/nats")
            expect(row(page, "gpu")).to_contain_text("new driver")
            expect(row(page, "etl")).to_contain_text("served")
            expect(row(page, "reports")).to_contain_text("unserved")
            take(page, f"ui-queues-{theme}")
            page.get_by_role("tab", name="Workers").click()
            for name in WORKERS:
                expect(row(page, name)).to_contain_text("running")
            take(page, f"ui-workers-{theme}")


def main() -> int:
    if CHROMIUM is None:
        sys.stderr.write("no chromium on the PATH (Debian's package of that name)\n")
        return 1
    expect.set_options(timeout=PATIENCE)
    with tempfile.TemporaryDirectory() as home, Site(Path(home)) as site, sync_playwright() as p:
        fill(site)
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take_all(site, browser)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
