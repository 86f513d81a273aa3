"""Names of queues on a command line: any text, there and back."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import ConfigError
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import (
    as_argument,
    as_text,
    in_pairs,
    in_text,
    in_user,
    remedy,
    require_servable,
)

ODD = [
    "a,b", " lead and trail ", '"', '"quoted"', 'say "hi"', "it's", "$HOME `id` \\", "-x", "größe",
    "two\nlines", "\t", "\x1b[2J", "a=b", ",", "[/bold]", ":smile:",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("default,gpu", ["default", "gpu"]),
        (" default , gpu ,, ", ["default", "gpu"]),
        ("", []),
        (" , ", []),
        ('"a,b",default', ["a,b", "default"]),
        (' "a,b" , default', ["a,b", "default"]),
        ('" lead and trail "', [" lead and trail "]),
        ('"say ""hi"""', ['say "hi"']),
        ('say "hi"', ['say "hi"']),
        ('""', []),
    ],
)
def test_a_list_of_names(text: str, names: list[str]) -> None:
    assert in_text(text) == names


@pytest.mark.parametrize("text", ['"a', 'b,"a', '"a"b', 'x,"a" b'])
def test_quotes_that_do_not_match_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r'quote a name that has a comma.*: "a,b"'):
        in_text(text)


@given(st.lists(st.text(min_size=1)))
def test_any_names_are_read_as_they_were_written(names: list[str]) -> None:
    assert in_text(as_text(names)) == names


def test_plain_names_stay_as_they_are() -> None:
    assert as_text(["default", "a b", 'say "hi"']) == 'default,a b,say "hi"'


@pytest.mark.parametrize("name", ODD)
def test_a_shell_gives_a_remedys_name_back(name: str) -> None:
    line = f"printf '%s' {as_argument(name)}"

    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)

    assert done.stdout.decode() == name
    assert as_argument(name).isprintable()


def test_a_remedy_is_as_short_as_it_may_be() -> None:
    assert remedy(Lane("gpu"), has_workers=False) == "airflow nats worker -q gpu"
    assert remedy(Lane("a,b"), has_workers=False) == """airflow nats worker -q '"a,b"'"""


@pytest.mark.parametrize(
    ("text", "user", "queues"),
    [
        ("w=a,b", "w", ["a", "b"]),
        ("CN=w=b", "CN=w", ["b"]),
        ('w="a,b",c', "w", ["a,b", "c"]),
        ('w="a=b"', "w", ["a=b"]),
        ("w=", "w", []),
        ("w", "", []),
    ],
)
def test_a_user_and_its_queues(text: str, user: str, queues: list[str]) -> None:
    assert in_user(text) == (user, queues)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("gpu=4, a=b=10", [("gpu", "4"), ("a=b", "10")]),
        ('"a,b"=4 , " lead "=2', [("a,b", "4 "), (" lead ", "2")]),
        ('"a=1,b"=4', [("a=1,b", "4")]),
    ],
)
def test_pairs_of_a_queue_and_a_value(text: str, pairs: list[tuple[str, str]]) -> None:
    assert in_pairs(text) == pairs


@pytest.mark.parametrize("text", ["gpu", "=4", '"gpu=4', '"gpu"x=4', "gpu=4,", ""])
def test_what_is_no_list_of_pairs(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        in_pairs(text)


def test_a_name_that_no_command_line_can_hold_is_refused() -> None:
    require_servable("a\nb,c")

    with pytest.raises(ValueError, match="no command line can hold a name with a NUL character"):
        require_servable("a\0b")
