"""Each line that a part can print is on the page of lines, which says what to do about it."""

from __future__ import annotations

import re

import pytest

from tests.remedies.lines import EXAMPLES, LINES
from tests.tools import document_lines
from tests.tools.boundaries import ROOT, Module, modules
from tests.tools.printed import (
    FORMATTED,
    TELLING_WORDS,
    VALUE,
    Kind,
    pattern_of,
    printed,
    printed_by,
    words_in,
)

PAGE = ROOT / "docs/reference/lines.md"
TROUBLE = (ROOT / "docs/how-to/troubleshooting.md").read_text()
LOGGED = re.compile(r'\blog\.(warning|error|exception)\(\s*f?("[^"]*"|\w+(?=[,)]))')
STATUS = re.compile(r'(?:check_row\([^"]*(?:f?"[^"]*")?, |"status": )"([a-z ]+)"')


def test_the_page_of_lines_is_current() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text() == document_lines.document()


def test_each_call_of_a_log_is_on_the_page() -> None:
    """Looked for in another way than the page is made: by a pattern over the source."""
    page = PAGE.read_text()
    calls = [(module, first) for module in modules() for _, first in LOGGED.findall(module.source)]
    assert len(calls) > 80

    for module, first in calls:
        if first.startswith('"'):
            text = " ".join(re.sub(r"\{.*?\}", VALUE, FORMATTED.sub(VALUE, first[1:-1])).split())
            assert text in page or not words_in(text), f"{module.name}: {text}"
        else:
            is_set = re.search(rf"\b{first}\b(: str)? (:?=|in) \(*\s*f?[\"(]", module.source)
            assert is_set, f"{module.name}: no text of {first}, which is logged"


@pytest.mark.parametrize(
    ("source", "text", "kind"),
    [
        ('log.warning("%s is away; next: waiting", name)', "… is away; next: waiting", "WARNING"),
        ('log.error("gone")', "gone", "ERROR"),
        ('log.exception("it broke down")', "it broke down", "FAULT"),
        ('log.info(f"took {number} back")', "took … back", "INFO"),
        ('def f():\n    text = "one " f"{a} more"\n    log.warning(text)', "one … more", "WARNING"),
        (
            'def f():\n    text = "one or more"\n\ndef g():\n    log.error(text)',
            "one or more",
            "PART",
        ),
        ('TEXT = "one or more"\n\ndef g():\n    log.warning(TEXT)', "one or more", "WARNING"),
        ('raise ConfigError(f"{name!r}: write a number")', "…: write a number", "RAISED"),
        ('X = NotFound("no queue is there")', "no queue is there", "RAISED"),
        ('check_row(f"queue {name}", "lost", "silent for long")', "silent for long", "FINDING"),
        ('Reason(Cause.TURN, "It waits its turn.")', "It waits its turn.", "REASON"),
        ('"""Says it all here."""\nX = ["short text", "the third one"]', "the third one", "PART"),
        ('X = "raise {} in the servers"', "raise … in the servers", "PART"),
    ],
)
def test_a_text_is_found_with_what_prints_it(source: str, text: str, kind: str) -> None:
    [found] = printed_by(Module("nats_executor.some", source))

    assert (found.text, found.kind) == (text, Kind[kind])


@pytest.mark.parametrize(
    "source",
    [
        'log.debug("not for operators at all")',
        'log.warning("%s: %s", name, reason)',
        'X = re.compile("a pattern of some words")',
        'X = "two words"',
        'X["the key of it"]',
    ],
)
def test_what_no_reader_sees_is_no_text(source: str) -> None:
    assert printed_by(Module("nats_executor.some", source)) == []


def test_of_a_module_of_help_texts_only_what_it_raises_counts() -> None:
    source = 'HELP = "the name of a queue"\nraise ConfigError("name one queue at least")'

    [text] = printed_by(Module("nats_executor.cli.queue_definitions", source))

    assert text.text == "name one queue at least"


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_a_test_waits_for_is_on_the_page(name: str) -> None:
    line = LINES[name].format(**EXAMPLES)
    telling = [text.text for text in printed() if len(words_in(text.text)) >= TELLING_WORDS]

    assert [text for text in telling if pattern_of(text).search(line)], line


def test_a_line_says_what_to_do_where_it_needs_a_person() -> None:
    """A worker's, a scheduler's or NATS's line at level warning has a link or a next step."""
    mute = [
        text.text
        for text in printed()
        if text.kind in {Kind.FAULT, Kind.ERROR, Kind.WARNING}
        and document_lines.remedy(text) == document_lines.SAYS
        and not re.search(r"; |ordered|leaving|may find|refused", text.text)
    ]

    assert mute == []


def test_each_link_of_the_page_leads_to_a_heading() -> None:
    for _, to, _ in document_lines.PAGES:
        path, _, anchor = to.partition("#")
        text = (PAGE.parent / path).read_text()
        assert not anchor or anchor in map(slug, re.findall(r"(?m)^#+ (.*)$", text)), to


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_each_status_of_check_is_explained() -> None:
    statuses = {
        status
        for module in modules()
        for status in re.findall(
            r'(?:check_row\([^"]*(?:f?"[^"]*")?, |"status": )"([a-z ]+)"', module.source
        )
    }
    _, _, part = TROUBLE.partition("## `check` is red")
    told = set(re.findall(r"`([a-z ]+)`", part.partition("\n## ")[0]))

    assert len(statuses) > 20
    assert statuses - {"ok", "unknown"} - told == set()
