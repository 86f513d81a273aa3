"""Pages, options and `--help` are plain English, as far as a program can judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tools.prose import (
    Finding,
    judge,
    judge_commands,
    judge_options,
    judge_page,
    judge_pages,
    main,
    pages,
    paragraphs,
    prose_of,
)
from tests.tools.prose_rules import LONGEST, REMEDIES, broken, sentences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CAUGHT = [
    ("long", "word " * LONGEST + "word."),
    ("clause", "What a worker holds goes back."),
    ("clause", "Who drains a worker is in the log."),
    ("clause", "Whether it ran decides the report."),
    ("clause", "How long a drain lasts depends on its tasks."),
    ("clause", "Where the report is tells the claim."),
    ("clause", "Why it failed is in the log."),
    ("clause", "That the broker is down does not matter."),
    ("clause", "That also holds for callbacks."),
    ("clause", "The queue is paused; what runs there goes on."),
    ("clause", "But what has ended stays."),
    ("word", "Nobody reads it."),
    ("word", "Stop it, then start it anew."),
    ("word", "It shall run."),
    ("word", "The file is to be removed."),
    ("word", "While the broker is away, it waits."),
    ("word", "API server away at the start"),
    ("word", "It gives up after so many tries."),
    ("cleft", "It is the worker that decides."),
    ("cleft", "Then it was the claim of another worker which won."),
    ("bracket", "A part (one of one two three four five) is gone."),
    ("bracket", "A part (one of one two three four five) `x` is gone."),
    ("passive", "It is read, was stored and has been removed."),
    ("passive", "They are not sent, are quickly stored and then were told."),
    ("nested", "It sends what the worker that has the task that waits knows of what ran."),
    ("nested", "In it, says the part that knows which worker, of two has what runs."),
    ("semicolon", "it runs; it waits; it ends"),
    ("relative", "The time by which a worker ends."),
    ("relative", "The user to whom it belongs."),
]
# One fault each that was found in this project, in other words.
KINDS = [
    ("clause", "The note stays; what it says then is decided later."),
    ("word", "Age of a lease from which on it may be taken by others."),
    ("clause", "That also goes for the last word on each lease that it has."),
    ("clause", "What waits is told once in each pause, and goes on when it is over."),
    ("word", "Reports wait, and every part that goes on in its own way tells of it."),
    ("word", "[Gone is who] did not speak for a minute."),
    ("clause", "What needs a restart, or a new name, is refused with a line."),
    ("semicolon", "codes: 0 done already; 1 some said no; 2 there is no answer"),
    ("clause", "What an old part left in a place that no new one reads wants an old reader."),
    ("word", "When it is over, the file goes, if you say so."),
]
PASSED = [
    "word " * (LONGEST - 1) + "word.",
    "What does a worker hold?",
    "What a worker holds",
    "[What a worker holds] has the details.",
    "How to drain a worker: see below.",
    "It prints the cause, then what to do.",
    "Where a queue is paused, its tasks wait.",
    "Which worker has it, and what does it run?",
    "That scheduler sends it again.",
    "The page tells what a worker holds.",
    "A file that is 40 days old is removed.",
    "The worker is away from the broker.",
    "Does it stop; what runs then?",
    "It runs as long as you like, and so long as it can.",
    "It is empty. The worker that had it stopped.",
    "A part (one of one two three four) is gone.",
    "A part is gone (one of one two three four five six).",
    "It is read and was stored.",
    "It sends what the worker that has the task said.",
    "It knows which worker has what runs there, and that is all.",
    "It runs; it waits.",
    "It asks in whichever way you like.",
    "`nobody` and `it is a that; b; c` are code.",
]


@pytest.mark.parametrize(("rule", "sentence"), [*CAUGHT, *KINDS])
def test_a_sentence_that_breaks_a_rule_is_caught(rule: str, sentence: str) -> None:
    assert rule in broken(sentence)


@pytest.mark.parametrize("sentence", PASSED)
def test_a_plain_sentence_is_not_caught(sentence: str) -> None:
    assert broken(sentence) == []


def test_every_rule_is_tried_and_has_a_remedy() -> None:
    assert {rule for rule, _ in CAUGHT} == REMEDIES.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! `Three`? Four", ["One.", "Two!", "`Three`?", "Four"]),
        ("It takes\n4.5 s, e.g. Monday, i.e. A, etc. B vs. C.", None),
        ('He said "stop." Then it\nstopped.', ['He said "stop."', "Then it stopped."]),
        ("`airflow. Nats` runs. (It ends.) ok", ["`airflow. Nats` runs. (It ends.) ok"]),
        ("queues, workers ... Dags", None),
        ("", []),
    ],
)
def test_text_is_cut_into_sentences(text: str, expected: list[str] | None) -> None:
    whole = [" ".join(text.split())]

    assert [sentence for _, sentence in sentences(text)] == (
        whole if expected is None else expected
    )


PAGE = """\
# Anew

A line,
and one more. Then nobody `nobody`
came.

```
nobody
```

| whoever | b |
|---|---|
| `nobody` | it is
| b | x shall |

- an item
- **upon** [thus](nobody.md) ![hence](nobody.png)
"""


def test_each_part_of_a_page_but_code_is_judged_with_its_line() -> None:
    found = [(finding.line, finding.sentence) for finding in judge_page("p.md", PAGE)]

    assert found == [
        (1, "Anew"),
        (4, "Then nobody `nobody` came."),
        (11, "whoever"),
        (14, "x shall"),
        (17, "upon [thus] hence"),
    ]


def test_a_finding_names_its_place() -> None:
    (found,) = judge("a.md", 7, "It is fine.\nIt shall run.")

    assert str(found) == "a.md:8: word: It shall run."
    assert str(Finding("an option", 0, "word", "Anew.")) == "an option: word: Anew."


def test_of_an_epilog_examples_are_left_out_but_not_what_they_say() -> None:
    epilog = """\
examples:
  airflow nats nobody
  airflow nats x -q a     one queue

columns:
  state  running or
         lost
  a, b   two

A worker
stops.
"""

    assert list(paragraphs(epilog)) == [
        "examples:", "one queue", "columns:", "running or lost", "two", "A worker stops."
    ]  # fmt: skip


def test_of_the_changelog_only_the_unreleased_part_is_judged(tmp_path: Path) -> None:
    page = tmp_path / "CHANGELOG.md"
    page.write_text("# Changes\n\n## [Unreleased]\n\n### Added\n\n## [1.0]\n\nNobody.\n")

    assert prose_of(page) == "# Changes\n\n## [Unreleased]\n\n### Added\n\n"


def test_the_command_prints_findings_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Nobody\nreads.\n")

    assert main([str(page)]) == 1
    assert capsys.readouterr() == (
        f"{page}:1: word: Nobody reads.\n", f"word: {REMEDIES['word']}\n"
    )  # fmt: skip

    page.write_text("You read.\n")
    assert main([str(page)]) == 0
    assert capsys.readouterr() == ("", "")

    assert main([str(tmp_path / "none.md")]) == 2
    assert "none.md: No such file" in capsys.readouterr().err


def test_pages_are_plain_english() -> None:
    """`python -m tests.tools.prose FILE` prints what to do about each sentence."""
    assert len(pages()) > 15
    assert [str(finding) for finding in judge_pages(pages())] == []


@pytest.mark.parametrize("judged", [judge_options, judge_commands])
def test_options_and_help_are_plain_english(judged: Callable[[], Iterator[Finding]]) -> None:
    assert [str(finding) for finding in judged()] == []
