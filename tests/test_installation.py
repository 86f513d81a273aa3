"""The releases of a worker and of this machine are compared as far as they are known."""

from __future__ import annotations

import platform

import pytest

from nats_executor.installation import Releases, differing, installed

OURS = Releases("0.2", "3.3.2", "3.12.4")


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (OURS, []),
        (Releases("0.1", "3.3.1", "3.11.4"), ["version", "airflow", "python"]),
        (OURS._replace(airflow="3.3.20"), ["airflow"]),
        (OURS._replace(python="3.12.9"), []),
        (OURS._replace(python="3.1.4"), ["python"]),
        (OURS._replace(python="2.12.4"), ["python"]),
        # The release before tells neither.
        (Releases("0.2", "", ""), []),
        (Releases("", "3.3.2", "3.12.4"), []),
    ],
)
def test_what_differs_is_named(theirs: Releases, expected: list[str]) -> None:
    assert differing(theirs, OURS) == expected


def test_this_machine_has_all_three() -> None:
    found = installed()

    assert found.python == platform.python_version()
    assert all(release[0].isdigit() for release in found), found
