"""One line says what became of a module, and what to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import DecodeError
from nats_executor.preloads import Trial, decode_trial, encode_trial, parted

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", fullmatch=True)
MARK = "\N{REPLACEMENT CHARACTER}"
OPTION = "[nats_executor] preload_modules"


@pytest.mark.parametrize(
    ("trial", "status", "text"),
    [
        (
            Trial("pandas", seconds=1.234, bytes=45_600_000),
            "ok",
            "pandas is preloaded: 1.23 s, 46 MB",
        ),
        (
            Trial("sdk", descriptors=2),
            "ok",
            "sdk is preloaded: 0.00 s, 0 MB, 2 open descriptors that tasks inherit",
        ),
        (
            Trial("numpy", is_forced=True, threads=1, processes=2),
            "ok",
            "numpy is preloaded: 0.00 s, 0 MB, starts 1 thread and 2 processes",
        ),
        (
            Trial("numpy", threads=3),
            "not preloaded",
            (
                "numpy is not preloaded: its import starts 3 threads, and tasks are forks, which "
                "have none of that; remove it from the list, or write numpy! if it works in forks"
            ),
        ),
        (
            Trial("sdk", processes=1),
            "not preloaded",
            (
                "sdk is not preloaded: its import starts 1 process, and tasks are forks, which "
                "have none of that; remove it from the list, or write sdk! if it works in forks"
            ),
        ),
        (
            Trial("nope", is_forced=True, error="ImportError: two\nlines"),
            "not preloaded",
            (
                f"nope is not preloaded: ImportError: two{MARK}lines; install or mend it on "
                "this machine, or remove it from the list"
            ),
        ),
    ],
)
def test_each_trial_has_its_line(trial: Trial, status: str, text: str) -> None:
    assert (trial.status, trial.text) == (status, f"{OPTION}: {text}")
    assert trial.is_accepted == (status == "ok")


def test_an_entry_has_a_module_and_perhaps_a_mark() -> None:
    assert parted(("a.b", "c!")) == [("a.b", False), ("c", True)]


@given(st.builds(Trial, module=NAMES, is_forced=st.booleans(), error=st.text()))
def test_a_trial_comes_back_as_it_was(trial: Trial) -> None:
    line = encode_trial(trial)

    assert decode_trial(line) == trial
    assert len(line.splitlines()) == 1
    assert len(trial.text.splitlines()) == 1


@pytest.mark.parametrize("line", ["", "{", "[]", '{"module": "a", "more": 1}', "{}"])
def test_something_else_is_no_trial(line: str) -> None:
    with pytest.raises(DecodeError):
        decode_trial(line)
