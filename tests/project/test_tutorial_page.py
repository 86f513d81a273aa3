"""The reader of the tutorial's commands, and that its page is one that can be followed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.tutorial import Page, is_shown, outputs, script
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
Some words.

<!-- not run -->
```console
$ apt install x
```

<!-- file: a.cfg -->
```ini
x = 'y'
```

```console
$ cat > b <<'E'
text
E
$ echo one; echo two
```

```text
one ... two
```
"""


def test_blocks_have_their_remarks_commands_and_output() -> None:
    first, file, last = Page(PAGE).blocks

    assert (first.remark, first.commands) == ("not run", ["apt install x\n"])
    assert (file.file, file.text, file.commands) == ("a.cfg", "x = 'y'\n", [])
    assert last.commands == ["cat > b <<'E'\ntext\nE\n", "echo one; echo two\n"]
    assert (last.remark, last.file, last.shown) == ("", "", ["one ... two"])


@pytest.mark.parametrize(
    ("line", "output", "shown"),
    [
        ("a ... c", "a b c\n", True),
        ("a ... c", "a b\nc\n", False),
        ("a ... c", "c b a\n", False),
        ("a.c", "abc\n", False),
        ("worker-1 ... lost", "x\nworker-1  default  lost  0\n", True),
    ],
)
def test_dots_stand_for_anything_of_a_line(line: str, output: str, shown: bool) -> None:
    assert is_shown(line, output) is shown


def test_a_script_runs_in_one_shell_and_stops_at_what_fails(tmp_path: Path) -> None:
    pages = "```console\n$ x=1\n```\n```console\n$ echo $x\n$ false\n$ echo never\n```\n"

    done = subprocess.run(
        ["bash", "-c", script(Page(pages).blocks)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 1
    assert outputs(done.stdout) == ["", "1\n"]


def test_the_tutorial_is_read_whole() -> None:
    text = (ROOT / "docs/tutorial/cluster.md").read_text()
    page = Page(text)

    assert len(page.blocks) + sum(bool(b.shown) for b in page.blocks) == text.count("```") / 2
    assert {b.remark for b in page.blocks if not b.file} == {"", "install", "not run"}
    assert {b.file for b in page.blocks if b.file} == {"airflow.cfg", "dags/tutorial.py"}
    run = [block for block in page.blocks if block.remark != "not run"]
    checked = subprocess.run(["bash", "-n"], input=script(run), text=True, check=False)
    assert checked.returncode == 0
    assert all(block.commands or block.file for block in page.blocks)
