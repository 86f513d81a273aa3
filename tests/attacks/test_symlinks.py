"""A task puts links in the place of its log and of the folders around it; then it is stored."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.connection import connect
from nats_executor.logs import ended, store
from nats_executor.logs.ended import StoredLogs
from tests.support.user_stage import NAMES, UserStage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

SECRET = "not for the Dag's author\n"
PATH = "dag_id=a/run_id=b/attempt=1.log"


class Instance:
    """What Airflow says of a task instance."""

    queue = "a"


class Stage:
    """A log folder beside something that is none of a task's business."""

    def __init__(self, directory: Path, user_stage: UserStage) -> None:
        self.user_stage = user_stage
        self.folder = directory / "logs"
        self.outside = directory / "outside"
        for folder in (self.folder, self.outside / "run_id=b"):
            folder.mkdir(parents=True)
        self.secrets = [
            self.outside / "secret",
            self.outside / "attempt=1.log",
            self.outside / "run_id=b" / "attempt=1.log",
        ]
        for secret in self.secrets:
            secret.write_text(SECRET)
        self.logs = StoredLogs(self.folder, deletes=True)
        vars(self.logs)["_settings"] = user_stage.settings("worker_a")

    def write(self, text: str = "a line\n") -> Path:
        file = self.folder / PATH
        file.parent.mkdir(parents=True)
        file.write_text(text)
        return file

    def upload(self) -> None:
        self.logs.upload(PATH, Instance())

    def stored(self) -> bytes:
        async def look() -> bytes:
            async with connect(self.user_stage.settings("api_server"), role="test") as broker:
                await broker.ready(10)
                found = await store.find(broker, NAMES, "a", PATH)
                bodies = [
                    await store.chunks(broker, NAMES, "a", PATH, part, part.numbers)
                    for part in found.parts
                ]
            return b"".join(body or b"" for part in bodies for body in part)

        return asyncio.run(look())

    @property
    def is_intact(self) -> bool:
        return all(secret.read_text() == SECRET for secret in self.secrets)


@pytest.fixture
def stage(tmp_path: Path, user_stage: UserStage) -> Iterator[Stage]:
    yield Stage(tmp_path, user_stage)
    ended.leave_to(None)


def at_the_end(stage: Stage) -> None:
    file = stage.write()
    file.unlink()
    file.symlink_to(stage.outside / "secret")


def at_the_end_to_a_file_in_the_folder(stage: Stage) -> None:
    other = stage.folder / "other.log"
    other.write_text(SECRET)
    file = stage.write()
    file.unlink()
    file.symlink_to(other)


def in_the_midst(stage: Stage) -> None:
    (stage.folder / "dag_id=a").symlink_to(stage.outside)


def in_the_midst_and_relative(stage: Stage) -> None:
    (stage.folder / "dag_id=a").symlink_to("../outside")


def in_the_last_folder(stage: Stage) -> None:
    (stage.folder / "dag_id=a").mkdir()
    (stage.folder / "dag_id=a" / "run_id=b").symlink_to(stage.outside)


def a_pipe(stage: Stage) -> None:
    file = stage.write()
    file.unlink()
    os.mkfifo(file)


LINKS = (
    at_the_end, at_the_end_to_a_file_in_the_folder, in_the_midst, in_the_midst_and_relative,
    in_the_last_folder, a_pipe,
)  # fmt: skip


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.__name__)
def test_nothing_behind_a_link_is_stored_or_deleted(
    stage: Stage, link: Callable[[Stage], None], caplog: pytest.LogCaptureFixture
) -> None:
    link(stage)

    stage.upload()

    assert stage.stored() == b""
    assert stage.is_intact
    assert (stage.folder / PATH).is_symlink() or (stage.folder / PATH).exists()
    reason = "it is no regular file" if link is a_pipe else "a symbolic link is in its path"
    assert f"{stage.folder / PATH} is not in NATS and stays here: {reason}" in caplog.text


def test_a_file_is_stored_and_deleted_with_its_folders(stage: Stage) -> None:
    """The same way through, so that the ones above mean something."""
    stage.write()

    stage.upload()

    assert stage.stored() == b"a line\n"
    assert list(stage.folder.iterdir()) == []


def swapped_file(stage: Stage) -> None:
    """A link in the place of the log."""
    file = stage.folder / PATH
    file.rename(stage.folder / "kept")
    file.symlink_to(stage.outside / "secret")


def swapped_folder(stage: Stage) -> None:
    """A link in the place of a folder, to one that has a file of the log's name."""
    (stage.folder / "dag_id=a").rename(stage.folder / "kept")
    (stage.folder / "dag_id=a").symlink_to(stage.outside)


def swapped_last_folder(stage: Stage) -> None:
    (stage.folder / "dag_id=a" / "run_id=b").rename(stage.folder / "kept")
    (stage.folder / "dag_id=a" / "run_id=b").symlink_to(stage.outside)


def another_file(stage: Stage) -> None:
    """A file of another user, moved to where the log was."""
    file = stage.folder / PATH
    file.unlink()
    os.link(stage.outside / "secret", file)


@pytest.mark.parametrize(
    "swap", [swapped_file, swapped_folder, swapped_last_folder, another_file],
    ids=lambda swap: swap.__name__,
)  # fmt: skip
def test_nothing_is_deleted_that_comes_into_the_way_meanwhile(
    stage: Stage, swap: Callable[[Stage], None]
) -> None:
    """Between the first look and the deletion there is all the time of an upload."""
    stage.write()
    read: list[bytes] = []

    def swapping(_queue: str, _path: str, file: int) -> None:
        swap(stage)
        read.append(os.pread(file, 100, 0))

    ended.leave_to(swapping)
    stage.upload()

    assert read == [b"a line\n"]
    assert stage.is_intact
    if swap is another_file:
        assert (stage.folder / PATH).exists()


def test_no_descriptor_stays_open(stage: Stage) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted while it is open

    ended.leave_to(lambda *_: None)
    in_the_midst(stage)
    before = opened()

    for path in (PATH, "nowhere/x.log", "dag_id=a"):
        stage.logs.upload(path, Instance())
    (stage.folder / "dag_id=c").mkdir()
    (stage.folder / "dag_id=c" / "x.log").write_text("a line\n")
    stage.logs.upload("dag_id=c/x.log", Instance())

    assert opened() == before
