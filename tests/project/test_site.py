"""The site is made of the pages below docs/, whole, and works without a server or a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urldefrag

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.support.require import require
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

PAGES = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A busy machine is slow, which says nothing of the site.
PATIENCE = 60_000
Theme = Literal["light", "dark"]


def make(out: Path, tree: Path = ROOT) -> subprocess.CompletedProcess[str]:
    require((ROOT / ".site/.stamp").exists(), "no Sphinx (`make .site/.stamp` installs it)")
    return subprocess.run(
        [tree / "scripts/make-site", out], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    done = make(out)
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require(CHROMIUM, "no chromium on the PATH (Debian's package of that name)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Addresses(HTMLParser):
    """What a page of the site refers to, and the places in it that others may refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.named: set[str] = set()
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif name in {"href", "src"} and value:
                self.named.add(value)
            elif name == "srcset" and value:
                self.named |= {part.split()[0] for part in value.split(",")}


def addresses(path: Path) -> Addresses:
    found = Addresses()
    found.feed(path.read_text())
    return found


def test_every_page_is_there(site: Path) -> None:
    made = {path.relative_to(site) for path in site.rglob("*.html")}

    assert len(PAGES) > 15
    assert {page.with_suffix(".html") for page in PAGES} - made == set()


def test_the_front_page_names_every_page() -> None:
    named = re.findall(r"\]\(([\w/-]+\.md)\)", (ROOT / "docs/index.md").read_text())

    assert {str(page) for page in PAGES} - {"index.md"} == set(named)


def test_the_order_is_that_of_the_front_page(site: Path) -> None:
    text = (site / "index.html").read_text()

    assert re.findall(r'class="caption[^>]*><span[^>]*>([^<]+)<', text) == [
        "Tutorial",
        "How-to",
        "Reference",
        "Explanation",
    ]


def test_whatever_a_page_refers_to_is_there(site: Path) -> None:
    pages = {path: addresses(path) for path in site.rglob("*.html")}

    lost = []
    for path, found in pages.items():
        for address in found.named:
            if re.match(r"[a-z]+:", address):
                continue
            file, place = urldefrag(address.partition("?")[0] if "?" in address else address)
            target = (path.parent / unquote(file)).resolve() if file else path
            known = pages[target].places if target in pages else {place}
            if not target.is_file() or (place and unquote(place) not in known):
                lost.append(f"{path.name}: {address}")

    assert lost == []


def test_a_site_with_a_gap_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/make-site", tmp_path / "scripts")
    (tmp_path / ".site").symlink_to(ROOT / ".site")
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs/conf.py", docs)
    (docs / "index.md").write_text("# Front\n\n## Tutorial\n\n[A page](page.md)\n")
    (docs / "unnamed.md").write_text("# Unnamed\n")
    (docs / "page.md").write_text(
        "# Page\n\n[a](nowhere.md), [b](index.md#gone), ![c](missing.png), [d](#away)\n"
    )

    done = make(tmp_path / "out", tmp_path)

    assert done.returncode == 1
    for gap in ("nowhere.md", "'gone'", "missing.png", "'away'", "unnamed.md: WARNING: document"):
        assert gap in done.stderr


def opened(browser: Browser, path: Path, theme: Theme = "light") -> tuple[Page, list[str]]:
    """Open a file, and return the tab with the list of all that it asks for."""
    context = browser.new_context(color_scheme=theme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(f"error: {error}"))
    page.goto(path.as_uri())
    return page, asked


def test_the_search_works_without_a_server(site: Path, browser: Browser) -> None:
    page, asked = opened(browser, site / "index.html")

    page.get_by_placeholder("Search").fill("ack_wait_seconds")
    page.get_by_placeholder("Search").press("Enter")

    results = page.locator("#search-results li a")
    expect(results.first).to_be_visible(timeout=PATIENCE)
    assert "Configuration" in results.all_inner_texts()[0]
    results.first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Configuration", timeout=PATIENCE)
    assert [url for url in asked if not url.startswith(site.as_uri())] == []
    page.context.close()


COLOURS = """() => [document.body, document.querySelector('article h1'),
    document.querySelector('article pre')].filter(Boolean).map(element => {
        let around = element;
        while (getComputedStyle(around).backgroundColor === 'rgba(0, 0, 0, 0)') {
            around = around.parentElement;
        }
        return [getComputedStyle(element).color, getComputedStyle(around).backgroundColor];
    })"""


def brightness(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_can_be_read_in_both_themes(site: Path, browser: Browser, theme: Theme) -> None:
    page, asked = opened(browser, site / "how-to/observability.html", theme)

    colours = page.evaluate(COLOURS)

    assert len(colours) == 3
    for text, ground in colours:
        dim, bright = sorted((brightness(text), brightness(ground)))
        assert (bright + 0.05) / (dim + 0.05) >= 7
        assert (brightness(ground) > 0.5) == (theme == "light")
    assert [url for url in asked if not url.startswith(site.as_uri())] == []
    page.context.close()


def test_no_page_asks_for_anything_from_elsewhere(site: Path, browser: Browser) -> None:
    page, asked = opened(browser, site / "index.html")

    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0

    assert len(asked) > len(PAGES)
    assert [url for url in asked if not url.startswith((site.as_uri(), "data:"))] == []
    page.context.close()
