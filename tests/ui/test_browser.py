"""The page in Chromium, in a whole UI of Airflow behind a path, on a real nats-server.

Screenshots go to `build/`; `take_pictures.py` takes those of `docs/images`.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect, sync_playwright

from nats_executor.wire.history import Minute
from tests.support.require import require
from tests.tools.boundaries import ROOT
from tests.ui.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.integration]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BUILD = ROOT / "build"
# A busy machine is slow, which says nothing of the page.
PATIENCE = 60_000
DARK = "localStorage.setItem('theme', 'dark')"
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require(CHROMIUM, "no chromium on the PATH (Debian's package of that name)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Behind a path, with a worker, five queues and their tasks."""
    with Site(tmp_path_factory.mktemp("ui"), path="/airflow") as site:
        site.set_up(["batch", "default", "etl", "gpu", "reports"])
        site.add_worker("etl-1", "default,etl")
        site.announce("gpu-1", queues=("gpu",))
        site.send("reports", *(f"r{number}" for number in range(3)))
        site.plant()
        yield site


@contextmanager
def opened(site: Site, browser: Browser, role: str, script: str = "") -> Iterator[Page]:
    """Open a tab as a user of a role; an error in the page fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(PATIENCE)
    context.add_cookies([{"name": "_token", "value": site.token(role), "url": site.url}])
    if script:
        context.add_init_script(script)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert errors == []


@pytest.fixture
def visit(site: Site, browser: Browser, request: pytest.FixtureRequest) -> Any:
    """Open the page as a user of a role."""

    def start(role: str = "op", query: str = "", script: str = "") -> Page:
        manager = opened(site, browser, role, script)
        page = manager.__enter__()
        request.addfinalizer(lambda: manager.__exit__(None, None, None))
        page.goto(f"{site.url}/plugin/nats{query}")
        expect(page.get_by_role("heading", name="NATS")).to_be_visible()
        return page

    return start


def table(page: Page, name: str = "Queues") -> Locator:
    return page.get_by_role("table", name=name)


def row(page: Page, key: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=key, exact=True))


def choose(page: Page, *keys: str) -> None:
    for key in keys:
        page.get_by_label(f"Select {key}", exact=True).check()


def press(page: Page, label: str) -> Locator:
    """Press an action's button; return its dialog."""
    page.get_by_role("group", name="Actions").get_by_role("button", name=label, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def confirm(page: Page, dialog: Locator, label: str) -> Locator:
    """Confirm a dialog; return what the page says came of it."""
    dialog.get_by_role("button", name=label, exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    return page.get_by_role("status").filter(has_text=f"{label}: done")


def shot(page: Page, name: str) -> None:
    BUILD.mkdir(exist_ok=True)
    page.screenshot(path=BUILD / f"ui-{name}.png")


def audit(site: Site, event: str) -> list[tuple[str, dict[str, Any]]]:
    found = site.rows(f"SELECT owner, extra FROM log WHERE event = '{event}' AND task_id IS NULL")
    return [(owner, json.loads(extra)) for owner, extra in found]


# What it shows


def test_it_is_found_in_the_menu(visit: Any) -> None:
    page = visit("viewer")
    page.goto(page.url.removesuffix("plugin/nats"))

    page.get_by_role("button", name="Admin").click()
    page.get_by_role("menuitem", name="NATS").click()

    expect(table(page)).to_be_visible()
    assert page.url.endswith("/airflow/plugin/nats")


def test_queues_in_light(visit: Any, site: Site) -> None:
    site.announce("gpu-1", "gpu-2", queues=("gpu",))
    for queue, most in (("batch", 80), ("etl", 30)):
        depths = [max(0, most - abs(most - 4 * n)) for n in range(60)]
        site.remember(queue, *(Minute(depth=depth) for depth in depths))
    page = visit()

    expect(row(page, "reports")).to_contain_text("unserved")
    expect(row(page, "etl")).to_contain_text("served")
    expect(page.get_by_test_id("summary")).to_contain_text("5 queues: ")
    expect(page.get_by_role("button", name="Last hour of batch: at most 80")).to_be_visible()
    shot(page, "queues-light")


def test_the_last_hour_of_a_queue_is_drawn(visit: Any, site: Site) -> None:
    site.remember("etl", Minute(depth=40), Minute(depth=12, started=2, waited=3000, ended=7))
    page = visit("viewer")

    page.get_by_role("button", name="Last hour of etl: at most 40 waiting").click()

    dialog = page.get_by_role("dialog", name="Last hour of etl")
    for said in (
        r"Waiting: \d+ now, at most 40",
        r"Ended in each minute: \d now, at most 7",
        r"Mean wait of what started: .+ now, at most 1\.5 s",
    ):
        expect(dialog.get_by_text(re.compile(f"^{said}$"))).to_be_visible()
    expect(dialog.locator("svg[role=img]")).to_have_count(3)
    shot(page, "hour")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_what_waits_in_a_queue_is_listed(visit: Any) -> None:
    page = visit("viewer")

    page.get_by_role("button", name=re.compile("^Last hour of batch")).click()

    waiting = page.get_by_role("dialog").get_by_role("table", name="What waits")
    expect(waiting.get_by_role("row")).to_have_count(3)
    expect(waiting.get_by_role("row").nth(1)).to_contain_text("after")
    expect(waiting.get_by_role("row").nth(2)).to_contain_text("apart")
    shot(page, "waiting")
    page.keyboard.press("Escape")

    page.get_by_role("button", name=re.compile("^Last hour of default")).click()
    expect(page.get_by_role("dialog").get_by_text("No task waits in it")).to_be_visible()


def test_what_a_worker_runs_is_shown(visit: Any) -> None:
    page = visit("viewer", query="?tab=workers")

    page.get_by_role("button", name="etl-1", exact=True).click()

    dialog = page.get_by_role("dialog", name="Worker etl-1")
    expect(dialog.get_by_text("It runs nothing at the moment")).to_be_visible()
    expect(dialog.get_by_text(re.compile(r"^up for .+, Airflow 3\..+, Python 3\."))).to_be_visible()
    shot(page, "worker")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_workers_in_dark(visit: Any, site: Site) -> None:
    """By the tokens of Airflow's own theme: nothing of ours says a colour."""
    drained = {"draining": True, "drained_by": "ann", "drain_reason": "new kernel"}
    site.announce("gpu-1", queues=("gpu",))
    site.announce("gpu-2", queues=("gpu",), **drained)
    page = visit(query="?tab=workers", script=DARK)

    expect(row(page, "etl-1")).to_contain_text("running")
    colours = page.evaluate(
        """() => {
            const of = (element) => getComputedStyle(element);
            const text = document.querySelector("table th");
            return [of(document.body).backgroundColor, of(text).color];
        }"""
    )
    light = [sum(map(float, re.findall(r"[\d.]+", colour)[:3])) for colour in colours]
    shot(page, "workers-dark")
    assert page.evaluate("document.documentElement.className").split()[0] == "dark"
    assert light[0] < light[1], colours


def test_filter_tab_and_order_are_in_the_address(visit: Any) -> None:
    page = visit()
    page.get_by_label("Filter: Queue").fill("r")
    expect(row(page, "gpu")).to_have_count(0)
    page.get_by_role("button", name="Pending").click()
    expect(page.get_by_role("columnheader", name="Pending")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.get_by_role("button", name="Pending").click()
    expect(page.get_by_role("columnheader", name="Pending")).to_have_attribute(
        "aria-sort", "descending"
    )
    assert "queue=r" in page.url
    assert "sort=pending" in page.url

    page.reload()

    expect(page.get_by_label("Filter: Queue")).to_have_value("r")
    expect(row(page, "reports")).to_be_visible()
    page.get_by_label("Filter: Queue").fill("nothing")
    page.get_by_role("button", name="Clear the filter").click()
    expect(row(page, "gpu")).to_be_visible()
    page.get_by_role("tab", name="Workers").click()
    expect(table(page, "Workers")).to_be_visible()
    assert page.url.endswith("?tab=workers")


def test_a_tab_that_nobody_sees_asks_nothing(visit: Any) -> None:
    """The page's clock is the test's."""
    page = visit()
    expect(row(page, "gpu")).to_be_visible()
    page.clock.install()
    page.reload()
    expect(row(page, "gpu")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "/nats/api/queues" in r.url else None)
    hidden = (
        "Object.defineProperty(document, 'visibilityState', {configurable: true, get: () => '%s'})"
    )

    page.evaluate(hidden % "hidden")
    page.clock.run_for(30_000)
    assert asked == []

    page.evaluate(hidden % "visible")
    with page.expect_response(lambda r: "/nats/api/queues" in r.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_response(lambda r: "/nats/api/queues" in r.url):
        page.clock.run_for(3_000)


def test_a_keyboard_is_enough(visit: Any) -> None:
    """And the focus comes back to where it was."""
    page = visit()
    page.get_by_label("Select gpu", exact=True).focus()
    page.keyboard.press("Space")
    pause = page.get_by_role("button", name="Pause", exact=True)
    pause.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("For how long")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(pause).to_be_focused()


def test_everything_has_a_name_for_a_screen_reader(visit: Any) -> None:
    page = visit()
    for tab in ("Queues", "Workers", "Dead letters"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, table th")]
                .filter((one) => one.closest("[role=tabpanel], main, body > #root"))
                .filter((one) => !(one.ariaLabel || one.innerText.trim() || one.labels?.length
                                   || one.querySelector?.("input")))
                .map((one) => one.outerHTML)"""
        )
        assert nameless == []
        scopes = page.evaluate("[...document.querySelectorAll('table th')].map((one) => one.scope)")
        assert set(scopes) <= {"col", "row"}


# Who may


def test_a_viewer_sees_no_button_and_is_told_why(visit: Any, site: Site) -> None:
    page = visit("viewer")

    expect(page.get_by_text("You may look, viewer.")).to_be_visible()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_have_count(0)
    expect(page.get_by_label("Select gpu")).to_have_count(0)
    answer = page.request.post(
        f"{site.url}/nats/api/orders/queues/pause", data={"targets": ["gpu"]}
    )
    assert answer.status == 403


# What it orders


def test_queues_are_paused_and_resumed(visit: Any, site: Site) -> None:
    page = visit()
    choose(page, "gpu", "etl")
    dialog = press(page, "Pause")
    expect(dialog).to_contain_text("Pause: 2 queues")
    dialog.get_by_label("For how long").fill("soon")
    dialog.get_by_role("button", name="Pause", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("90s, 30m, 2h")
    dialog.get_by_label("For how long").fill("1h30m")
    dialog.get_by_label("Reason").fill("new driver")
    shot(page, "dialog")

    said = confirm(page, dialog, "Pause")

    expect(said).to_contain_text("queue etl is paused until")
    expect(row(page, "gpu")).to_contain_text("by op: new driver")
    [(owner, extra)] = audit(site, "nats queues pause")
    assert (owner, sorted(extra["targets"])) == ("op", ["etl", "gpu"])
    assert (extra["seconds"], extra["reason"]) == (5400, "new driver")

    choose(page, "gpu", "etl")
    expect(confirm(page, press(page, "Resume"), "Resume")).to_contain_text("queue gpu goes on")
    expect(row(page, "gpu")).not_to_contain_text("paused")


def test_a_worker_is_drained_and_undrained(visit: Any, site: Site) -> None:
    page = visit(query="?tab=workers")
    choose(page, "etl-1")
    dialog = press(page, "Drain")
    dialog.get_by_label("Reason").fill("new kernel")

    expect(confirm(page, dialog, "Drain")).to_contain_text("worker etl-1 takes nothing more")

    expect(row(page, "etl-1")).to_contain_text("drained by op: new kernel")
    assert audit(site, "nats workers drain") == [
        ("op", {"targets": ["etl-1"], "reason": "new kernel"})
    ]
    choose(page, "etl-1")
    said = confirm(page, press(page, "Undrain"), "Undrain")
    expect(said).to_contain_text("takes workloads again")
    expect(row(page, "etl-1")).to_contain_text("running")


def test_a_worker_is_changed(visit: Any, site: Site) -> None:
    page = visit(query="?tab=workers")
    orders = [
        ("Set concurrency", "Workloads at a time", "7"),
        ("Add queue", "Queue", "reports"),
        ("Remove queue", "Queue", "reports"),
    ]
    for label, field, value in orders:
        choose(page, "etl-1")
        dialog = press(page, label)
        dialog.get_by_label(field, exact=True).fill(value)
        expect(confirm(page, dialog, label)).to_contain_text("worker etl-1 now has concurrency 7")

    assert site.workers()["etl-1"].concurrency == 7
    assert site.workers()["etl-1"].queues == ["default", "etl"]


def test_a_worker_is_pinged_and_stopped(visit: Any, site: Site) -> None:
    site.add_worker("old-1", "default")
    page = visit(query="?tab=workers")
    choose(page, "old-1")
    said = confirm(page, press(page, "Ping"), "Ping")
    expect(said).to_contain_text("worker old-1 answers after")

    choose(page, "old-1")
    dialog = press(page, "Stop")
    dialog.get_by_label("End its tasks at once").check()
    expect(confirm(page, dialog, "Stop")).to_contain_text("worker old-1 stops")

    expect(row(page, "old-1")).to_have_count(0)
    [(owner, extra)] = audit(site, "nats workers stop")
    assert (owner, extra) == ("op", {"targets": ["old-1"], "is_now": True})


def test_a_worker_that_lives_is_not_forgotten(visit: Any) -> None:
    page = visit(query="?tab=workers")
    choose(page, "etl-1")

    said = confirm(page, press(page, "Forget"), "Forget")

    expect(said).to_contain_text("worker etl-1 answers: it lives, and is not forgotten")


def test_a_worker_that_is_gone_says_so(visit: Any) -> None:
    page = visit(query="?tab=workers")
    choose(page, "gpu-1")
    dialog = press(page, "Set concurrency")
    dialog.get_by_label("Workloads at a time").fill("3")

    expect(confirm(page, dialog, "Set concurrency")).to_contain_text("does not answer")


def test_dead_letters_are_counted_first_and_removed(visit: Any, site: Site) -> None:
    site.bury("gpu", *(f"x{number}" for number in range(4)))
    page = visit(query="?tab=dead-letters&queue=gpu")
    keys = page.get_by_role("rowheader")
    expect(keys).to_have_count(4)
    choose(page, keys.first.inner_text())
    dialog = press(page, "Purge")
    expect(dialog.get_by_role("status")).to_contain_text("1 dead letter would be removed")
    expect(confirm(page, dialog, "Purge")).to_contain_text("1 dead letter removed")
    expect(keys).to_have_count(3)

    dialog = press(page, "Purge")
    expect(dialog).to_contain_text("all dead letters of the filter")
    expect(dialog.get_by_role("status")).to_contain_text("3 dead letters would be removed")
    dialog.get_by_label("Reason").fill("seen")
    confirm(page, dialog, "Purge")

    expect(page.get_by_text("No dead letter matches the filter")).to_be_visible()
    assert audit(site, "nats dead-letters purge")[1] == ("op", {"queue": "gpu", "reason": "seen"})


def test_a_dead_letter_is_retried(visit: Any, site: Site) -> None:
    page = visit(query="?tab=dead-letters&dag=retrying")
    expect(page.get_by_role("rowheader")).to_have_count(1)
    dialog = press(page, "Retry")
    expect(dialog.get_by_role("status")).to_contain_text("1 of 1 dead letter can be retried")
    shot(page, "dead-letters")

    expect(confirm(page, dialog, "Retry")).to_contain_text("1 of 1 dead letter retried")

    # Airflow 3.4 keeps the row of the try before beside it.
    assert None in states(site, "load")
    assert site.rows("SELECT state FROM dag_run WHERE dag_id = 'retrying'") == [("queued",)]


def states(site: Site, task: str) -> set[str | None]:
    rows = site.rows(f"SELECT state FROM task_instance WHERE task_id = '{task}'")
    return {state for (state,) in rows}


def test_one_task_is_explained_and_cancelled(site: Site, browser: Browser) -> None:
    """On a tab of its task instance's own page."""
    with opened(site, browser, "op") as page:
        place = "dags/retrying/runs/r%201/tasks/apart"
        page.goto(f"{site.url}/{place}/plugin/nats-delivery")

        expect(page.get_by_text("No worker serves queue 'batch'")).to_be_visible()
        expect(page.get_by_role("link", name="Delivery")).to_be_visible()
        expect(page.get_by_role("table", name="What is known")).to_contain_text("Dispatch id")
        shot(page, "delivery")
        page.get_by_role("button", name="Cancel task").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("status")).to_contain_text("1 task (1 queued)")
        dialog.get_by_label("Reason").fill("wrong input")
        expect(confirm(page, dialog, "Cancel task")).to_contain_text("1 of retrying failed")

    assert states(site, "apart") == {"failed"}
    [(owner, extra)] = audit(site, "nats tasks cancel")
    assert (owner, extra["task"], extra["reason"]) == ("op", "apart", "wrong input")


def test_a_viewer_of_a_task_sees_why_and_no_button(site: Site, browser: Browser) -> None:
    with opened(site, browser, "viewer") as page:
        place = "dags/retrying/runs/r%201/tasks/after"
        page.goto(f"{site.url}/{place}/plugin/nats-delivery")

        expect(page.get_by_role("table", name="What is known")).to_be_visible()
        expect(page.get_by_role("button", name="Cancel task")).to_have_count(0)


def test_a_queue_is_purged(visit: Any, site: Site) -> None:
    page = visit()
    choose(page, "batch")
    dialog = press(page, "Purge")
    expect(dialog.get_by_role("status")).to_contain_text("queue batch: ")

    expect(confirm(page, dialog, "Purge")).to_contain_text("of retrying failed")

    assert states(site, "after") == {"failed"}


# What is designed for trouble and for size


def test_nats_is_away_and_comes_back(visit: Any, site: Site) -> None:
    page = visit()
    expect(row(page, "gpu")).to_be_visible()

    site.broker.stop()
    try:
        trouble = page.get_by_role("alert").filter(has_text="cannot reach NATS")
        expect(trouble).to_contain_text("old; this page goes on asking")
        expect(row(page, "gpu")).to_be_visible()
        shot(page, "away")
    finally:
        site.broker.start()

    expect(trouble).to_have_count(0)


def test_from_nothing_to_very_much(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> None:
    """An empty system says what to do; pages of a very large one are cut by the server."""
    with (
        Site(tmp_path_factory.mktemp("large")) as site,
        opened(site, browser, "op") as page,
    ):
        page.goto(f"{site.url}/plugin/nats")
        expect(page.get_by_text("There is no queue yet")).to_be_visible()
        expect(page.get_by_text("airflow nats worker -q default")).to_be_visible()
        page.get_by_role("tab", name="Workers").click()
        expect(page.get_by_text("There is no worker")).to_be_visible()
        page.get_by_role("tab", name="Dead letters").click()
        expect(page.get_by_role("alert")).to_contain_text("airflow nats setup")
        shot(page, "empty")

        site.set_up(f"q{number:03}" for number in range(200))
        site.bury("q000", *(f"d{number}" for number in range(10_000)))
        site.announce(*(f"w{number:03}" for number in range(1000)), queues=["q000", "q001"])

        summary = page.get_by_test_id("summary")
        expect(summary).to_have_text("10,000 dead letters")
        keys = page.get_by_role("rowheader")
        expect(keys.first).to_have_text("10000")
        expect(keys).to_have_count(50)
        page.get_by_role("button", name="Next").click()
        expect(keys.first).to_have_text("9950")
        page.get_by_role("button", name="Previous").click()
        expect(keys.first).to_have_text("10000")

        page.get_by_role("tab", name="Workers").click()
        expect(summary).to_contain_text("1,000 workers")
        expect(page.get_by_text("1 to 50 of 1,000")).to_be_visible()
        page.get_by_label("Filter: Worker").fill("w99")
        expect(page.get_by_text("1 to 10 of 10")).to_be_visible()
        shot(page, "many-workers")

        page.get_by_role("tab", name="Queues").click()
        expect(summary).to_contain_text("200 queues")
        for _ in range(3):
            page.get_by_role("button", name="Next").click()
        expect(page.get_by_text("151 to 200 of 200")).to_be_visible()
        expect(page.get_by_role("button", name="Next")).to_be_disabled()
        assert page.url.endswith("?page=3")
